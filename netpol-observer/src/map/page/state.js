
// What is looked at: filters, the workload in focus, the pair that is explained. It is kept in the address, so that a link shows the same.

const state = {view: 'board', search: '', namespaces: null, focus: -1, port: '', verdict: 'any', pair: null};

const VERDICTS = {any: 'Any', every: 'Every port', some: 'Some ports', denied: 'Denied', recorded: 'Recorded'};

// What follows from the filters.
const shown = {
  inNamespaces: new Uint8Array(count), found: new Uint8Array(count), outcomes, port: null,
  // For every party, how many it may call and be called by among the pairs that fit, and how many pairs fit at all.
  calls: new Uint32Array(count), calledBy: new Uint32Array(count), fits: new Uint32Array(count), total: 0,
};

// `8080`, `53/UDP`, `8000-8100/TCP`; null for no filter, and undefined for what is no port.
function parsePort(text) {
  if (!text.trim()) return null;
  const parts = /^\s*(\d{1,5})(?:-(\d{1,5}))?\s*(?:\/\s*(tcp|udp|sctp))?\s*$/i.exec(text);
  if (!parts) return undefined;
  const from = Number(parts[1]), to = Number(parts[2] || parts[1]);
  if (from < 1 || to > 65535 || from > to) return undefined;
  return {protocol: (parts[3] || 'TCP').toUpperCase(), from, to};
}

// How a cell comes out for the ports that are asked for: all of them admitted, some, none.
function outcomeOn(cell, plain, port) {
  if (plain === NONE) return NONE;
  let admitted = 0;
  for (const [protocol, from, to] of cell.ranges || []) {
    if (protocol === port.protocol) admitted += Math.max(0, Math.min(to, port.to) - Math.max(from, port.from) + 1);
  }
  return admitted === 0 ? DENIED : admitted > port.to - port.from ? EVERY : SOME;
}

function isOnPort(denial, port) {
  const [number, protocol] = denial.port.split('/');
  return protocol === port.protocol && Number(number) >= port.from && Number(number) <= port.to;
}

const recordedOf = key => {
  const denials = recorded.get(key);
  return !denials || !shown.port ? denials || [] : denials.filter(denial => isOnPort(denial, shown.port));
};

// Whether a pair fits all filters but the workload in focus.
function fits(from, to) {
  if (!shown.inNamespaces[from] || !shown.inNamespaces[to] || !(shown.found[from] || shown.found[to])) return false;
  const key = from * count + to;
  switch (state.verdict) {
    case 'any': return shown.outcomes[pairs[key]] !== NONE || recorded.has(key);
    case 'recorded': return recordedOf(key).length > 0;
    default: return OUTCOMES[shown.outcomes[pairs[key]]] === state.verdict;
  }
}

const fitsFocus = (from, to) => (state.focus < 0 || from === state.focus || to === state.focus) && fits(from, to);
const outcomeOf = (from, to) => shown.outcomes[pairs[from * count + to]];

// Works out what the filters leave.
function apply() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  for (let at = 0; at < count; at++) {
    shown.inNamespaces[at] = !state.namespaces || state.namespaces.has(groupOf(parties[at])) ? 1 : 0;
    shown.found[at] = words.every(word => searched[at].includes(word)) ? 1 : 0;
  }
  shown.port = parsePort(state.port) || null;
  shown.outcomes = shown.port ? Uint8Array.from(data.cells, (cell, at) => outcomeOn(cell, outcomes[at], shown.port)) : outcomes;
  shown.calls.fill(0); shown.calledBy.fill(0); shown.fits.fill(0); shown.total = 0;
  for (let from = 0; from < count; from++) {
    for (let to = 0; to < count; to++) {
      if (!fits(from, to)) continue;
      shown.total++; shown.fits[from]++; shown.fits[to]++;
      if (outcomeOf(from, to) >= SOME) { shown.calls[from]++; shown.calledBy[to]++; }
    }
  }
}

const isFiltered = () => state.search || state.namespaces || state.port || state.verdict !== 'any' || state.focus >= 0;

// Changes what is looked at, and draws it.
function change(changes) {
  Object.assign(state, changes);
  if ('search' in changes || 'namespaces' in changes || 'port' in changes || 'verdict' in changes) apply();
  draw();
  remember();
}

function focusOn(party) { change({focus: party, pair: null}); }
function explainPair(from, to) { change({pair: [from, to]}); }
function clearFilters() { change({search: '', namespaces: null, port: '', verdict: 'any', focus: -1, pair: null}); }

// The address, and back.
let ownAddress = '';
function remember() {
  const words = new URLSearchParams();
  if (state.view !== 'board') words.set('view', state.view);
  for (const name of ['search', 'port']) if (state[name]) words.set(name, state[name]);
  if (state.verdict !== 'any') words.set('verdict', state.verdict);
  if (state.namespaces) words.set('namespaces', [...state.namespaces].join(','));
  if (state.focus >= 0) words.set('workload', parties[state.focus].id);
  if (state.pair) { words.set('from', parties[state.pair[0]].id); words.set('to', parties[state.pair[1]].id); }
  ownAddress = words.toString();
  if (location.hash.slice(1) !== ownAddress) location.replace('#' + ownAddress);
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  const party = name => parties.findIndex(party => party.id === words.get(name));
  const [from, to] = [party('from'), party('to')];
  const view = words.get('view'), verdict = words.get('verdict');
  const namespaces = words.has('namespaces') ? new Set(words.get('namespaces').split(',').filter(name => groups.includes(name))) : null;
  Object.assign(state, {
    view: ['board', 'matrix', 'list'].includes(view) ? view : 'board', search: words.get('search') || '', port: words.get('port') || '',
    verdict: verdict in VERDICTS ? verdict : 'any', focus: words.has('workload') ? party('workload') : -1,
    pair: from >= 0 && to >= 0 ? [from, to] : null, namespaces,
  });
}
