'use strict';
// What the engine said, as it stands in the page. Nothing here or below decides a verdict; filters choose among verdicts.

const data = JSON.parse(document.getElementById('data').textContent);
const parties = data.parties;
const count = parties.length;

// A position in data.cells for every pair, by callers: bytes, little-endian whatever the machine is.
const pairs = (() => {
  const text = atob(data.pairs);
  const found = new Uint32Array(count * count);
  for (let at = 0; at < found.length; at++) {
    const byte = at * 4;
    found[at] = text.charCodeAt(byte) | text.charCodeAt(byte + 1) << 8 | text.charCodeAt(byte + 2) << 16 | text.charCodeAt(byte + 3) << 24;
  }
  return found;
})();

const NONE = 0, DENIED = 1, SOME = 2, EVERY = 3;
const OUTCOMES = ['none', 'denied', 'some', 'every'];
const WORDS = ['not a matter of policies', 'denied', 'some ports', 'every port'];

// How each cell comes out.
const outcomes = Uint8Array.from(data.cells, cell => cell.granted ? (cell.denied ? SOME : EVERY) : cell.denied ? DENIED : NONE);

// Recorded denials by pair.
const recorded = new Map();
for (const denial of data.denials) {
  const key = denial.from * count + denial.to;
  if (!recorded.has(key)) recorded.set(key, []);
  recorded.get(key).push(denial);
}

const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;

// The name of what is drawn around a party: its namespace, or what has none.
const BEYOND = '';
const groupOf = party => party.kind === 'workload' ? party.namespace : BEYOND;
const groupName = group => group === BEYOND ? 'Outside and nodes' : group;
const groups = [...new Set(parties.map(groupOf))].sort();
// Everybody as people look for them: what is outside first, then by namespace and name.
const ordered = parties.map((party, at) => at).sort((a, b) => compare(groupOf(parties[a]), groupOf(parties[b])) || compare(parties[a].name, parties[b].name) || a - b);

const shortName = party => party.kind === 'nodes' ? 'nodes' : party.name;
const KINDS = {Deployment: 'deploy', StatefulSet: 'sts', DaemonSet: 'ds', Job: 'job', CronJob: 'cronjob', ReplicaSet: 'rs', Pod: 'pod'};
const kindWord = party => party.kind !== 'workload' ? '' : KINDS[party.workloadKind] || party.workloadKind.toLowerCase();
const longName = party => party.kind === 'outside' ? outsideName(party) : party.id;
const outsideName = party => party.name === '0.0.0.0/0' ? 'any other IPv4 address' : party.name === '::/0' ? 'any other IPv6 address' : party.name;

// What is searched, once for each party.
const searched = parties.map(party => [party.id, longName(party), party.workloadKind || '', ...(party.labels || [])].join('\n').toLowerCase());

const allPorts = cell => cell.ports ? cell.ports.join(', ') : '';

// An element with properties and children; text is always text.
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.className = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

const byId = id => document.getElementById(id);
const plural = (number, one, many) => `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
