
// The list, and the panel that explains: a pair, a workload, or the whole.

const PAGE_ROWS = 200;
let listed = PAGE_ROWS;
let listedFor = '';

const verdictWords = outcome => shown.port ? (outcome === EVERY ? `allowed on ${portWords()}` : outcome === SOME ? `in part allowed on ${portWords()}` : outcome === DENIED ? `denied on ${portWords()}` : WORDS[NONE]) : WORDS[outcome];
const portWords = () => (shown.port.from === shown.port.to ? shown.port.from : `${shown.port.from}-${shown.port.to}`) + '/' + shown.port.protocol;
const badge = outcome => h('span', {class: 'badge ' + OUTCOMES[outcome]}, outcome === NONE ? '—' : verdictWords(outcome));

function drawList() {
  const filters = JSON.stringify([state.search, state.namespaces && [...state.namespaces], state.focus, state.port, state.verdict]);
  if (filters !== listedFor) { listed = PAGE_ROWS; listedFor = filters; }
  const body = byId('rows');
  body.textContent = '';
  let fitting = 0;
  for (const from of ordered) {
    if (state.focus < 0 && shown.fits[from] === 0) continue;
    for (const to of ordered) {
      if (!fitsFocus(from, to)) continue;
      fitting++;
      if (fitting <= listed) body.append(row(from, to, fitting === 1));
    }
  }
  byId('more-line').hidden = fitting === 0;
  byId('more').hidden = fitting <= listed;
  byId('more-says').textContent = `${Math.min(listed, fitting).toLocaleString('en')} of ${plural(fitting, 'pair', 'pairs')}`;
  return fitting > 0;
}

function row(from, to, isFirst) {
  const key = from * count + to, cell = data.cells[pairs[key]], drops = recordedOf(key).reduce((sum, denial) => sum + denial.count, 0);
  const isSelected = !!state.pair && state.pair[0] === from && state.pair[1] === to;
  return h('tr', {tabindex: isFirst ? '0' : '-1', 'data-from': from, 'data-to': to, 'aria-selected': String(isSelected)},
    h('td', {class: 'party'}, longName(parties[from])), h('td', {class: 'party'}, longName(parties[to])), h('td', {}, badge(outcomeOf(from, to))),
    h('td', {}, allPorts(cell)), h('td', {}, drops > 0 && h('span', {class: 'badge recorded'}, plural(drops, 'drop', 'drops'))));
}

function buildList() {
  const body = byId('rows');
  const explain = row => explainPair(Number(row.dataset.from), Number(row.dataset.to));
  body.addEventListener('click', event => { const row = event.target.closest('tr'); if (row) explain(row); });
  body.addEventListener('keydown', event => {
    const row = event.target.closest('tr');
    if (!row) return;
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); explain(row); return; }
    const next = {ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, Home: body.firstElementChild, End: body.lastElementChild}[event.key];
    if (next) { event.preventDefault(); row.tabIndex = -1; next.tabIndex = 0; next.focus(); next.scrollIntoView({block: 'nearest'}); }
  });
  byId('more').addEventListener('click', () => { listed += PAGE_ROWS; drawList(); });
}

// A selection redraws no row: it would lose the keyboard's place.
function markRow() {
  for (const row of byId('rows').children) {
    row.setAttribute('aria-selected', String(!!state.pair && state.pair[0] === Number(row.dataset.from) && state.pair[1] === Number(row.dataset.to)));
  }
}

function drawPanel() {
  const panel = byId('panel');
  panel.textContent = '';
  panel.scrollTop = 0;
  panel.append(...(state.pair ? pairPanel(...state.pair) : state.focus >= 0 ? partyPanel(state.focus) : wholePanel()));
}

const heading = (words, number) => h('h3', {}, words, number !== undefined && h('span', {class: 'count'}, number.toLocaleString('en')));
const closing = (label, onclick) => h('button', {class: 'close', 'aria-label': label, title: label + ' (Escape)', onclick}, '×');

function pairPanel(from, to) {
  const cell = data.cells[pairs[from * count + to]], outcome = outcomes[pairs[from * count + to]];
  const parts = [h('div', {class: 'head'}, h('div', {class: 'way'}, h('button', {onclick: () => focusOn(from)}, longName(parties[from])), h('span', {}, '↓ opens connections to'),
    h('button', {onclick: () => focusOn(to)}, longName(parties[to]))), closing('Close the explanation', () => change({pair: null})))];
  parts.push(h('p', {}, h('span', {class: 'badge ' + OUTCOMES[outcome]}, ['not a matter of policies', 'denied on every port', 'allowed on some ports', 'allowed on every port'][outcome])));
  if (outcome === NONE) parts.push(h('p', {class: 'quiet'}, 'Policies do not speak of these connections.'));
  for (const stretch of cell.granted || []) parts.push(card('Allowed on', stretch, cell));
  if (cell.denied) parts.push(card(cell.granted ? 'Denied on others, such as' : 'On', cell.denied, cell));
  if (cell.granted && parties[from].pods + parties[to].pods > 2) {
    parts.push(h('p', {class: 'quiet'}, 'For some of their pods at least; rules are those of one of them, on the first port of a range.'));
  }
  const denials = recorded.get(from * count + to) || [];
  if (denials.length > 0) parts.push(heading('Recorded drops', denials.length));
  for (const denial of denials) parts.push(denialCard(denial, cell));
  parts.push(...command(from, to, cell));
  return parts;
}

function card(words, stretch) {
  return h('div', {class: 'card'}, h('div', {}, words + ' ', h('b', {}, stretch.ports.join(', '))),
    h('dl', {class: 'side'}, h('dt', {}, 'egress'), h('dd', {}, ...rulingWords(data.rulings[stretch.egress], 'egress')), h('dt', {}, 'ingress'), h('dd', {}, ...rulingWords(data.rulings[stretch.ingress], 'ingress'))));
}

const lines = words => words && h('ul', {}, words.map(word => h('li', {}, h('code', {}, word))));

function rulingWords(ruling, direction) {
  switch (ruling.says) {
    case 'open': return [h('span', {class: 'open'}, 'open'), h('span', {class: 'quiet'}, direction === 'egress' ? ' — no policy restricts the caller here' : ' — no policy restricts the called one here')];
    case 'admitted': return [h('span', {class: 'yes'}, 'admitted'), ' by', lines(ruling.by)];
    case 'denied': return ruling.by ? [h('span', {class: 'no'}, 'denied'), ' by', lines(ruling.by)] : [h('span', {class: 'no'}, 'denied'), ': no rule admits it; isolated by', lines(ruling.isolating)];
    default: return [h('span', {class: 'no'}, 'cannot be decided'), `: ${ruling.why || ''}`];
  }
}

function denialCard(denial, cell) {
  const port = parsePort(denial.port);
  const isAllowedNow = !!port && (cell.ranges || []).some(([protocol, from, to]) => protocol === port.protocol && from <= port.from && port.to <= to);
  return h('div', {class: 'card recorded'}, h('div', {}, h('b', {}, denial.port), ` — ${plural(denial.count, 'packet', 'packets')}, last ${denial.last}`),
    h('p', {}, denial.summary), denial.by && h('p', {}, 'Denied by ', h('code', {}, denial.by)),
    (denial.fixes || []).map(fix => h('p', {}, 'To admit it: ', fix)),
    isAllowedNow && h('p', {}, h('b', {}, 'The policies of this map allow it'), ': they are not those of when it was dropped, or the drop concerns other pods of the workload.'));
}

// What to type to hear more.
function command(from, to, cell) {
  const end = party => party.kind === 'workload' ? party.id : party.kind === 'outside' && /\/(32|128)$/.test(party.name) ? party.name.replace(/\/\d+$/, '') : null;
  const [source, destination] = [end(parties[from]), end(parties[to])];
  if (!source || !destination) return [];
  const port = (cell.denied || (cell.granted || [])[0] || {ports: []}).ports[0] || '';
  const plain = /^\d+\/\w+$/.test(port) ? port : '80/TCP';
  const words = `observer explain -f MANIFESTS --from ${quote(source)} --to ${quote(destination)} --port ${plain}`;
  const button = h('button', {onclick: async () => { try { await navigator.clipboard.writeText(words); button.textContent = 'copied'; } catch { select(code); } }}, 'copy'), code = h('code', {}, words);
  return [heading('Each rule, and the smallest change'), h('div', {class: 'command'}, code, button)];
}

const quote = word => /^[\w./:@-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`;
const select = element => getSelection().selectAllChildren(element);

function partyPanel(at) {
  const party = parties[at], isWorkload = party.kind === 'workload';
  const parts = [h('div', {class: 'head'}, h('div', {}, h('h2', {}, longName(party)), h('p', {class: 'quiet'}, isWorkload ? `${party.workloadKind} in ${party.namespace}, ${plural(party.pods || 0, 'pod', 'pods')}${party.origin ? ', ' + party.origin : ''}`
    : party.kind === 'nodes' ? 'Nodes, and the pods in their network' : 'Addresses outside the cluster, but those in smaller ranges of this map')), closing('Leave this workload', () => focusOn(-1)))];
  if (party.labels) parts.push(h('div', {class: 'tags'}, party.labels.map(label => h('span', {class: 'tag'}, label))));
  if (party.ports) parts.push(h('p', {}, 'Declares ', party.ports.join(', ')));
  if (isWorkload) {
    for (const [words, policies] of [['Ingress', party.isolatedIngress], ['Egress', party.isolatedEgress]]) {
      parts.push(heading(`${words}: ${policies ? 'isolated by' : 'not isolated'}`), policies && h('ul', {class: 'plainlist'}, policies.map(policy => h('li', {}, h('code', {}, policy)))));
    }
  }
  const denials = data.denials.filter(denial => denial.from === at || denial.to === at);
  if (denials.length > 0) {
    parts.push(heading('Recorded drops', denials.length), links(denials.map(denial => [denial.from, denial.to, `${denial.port} ×${denial.count}`, denial.from === at ? '→ ' + longName(parties[denial.to]) : '← ' + longName(parties[denial.from]), 'recorded'])));
  }
  const others = ordered;
  const callers = others.filter(other => fits(other, at) && outcomeOf(other, at) >= SOME), called = others.filter(other => fits(at, other) && outcomeOf(at, other) >= SOME);
  const refused = others.filter(other => fits(other, at) && outcomeOf(other, at) === DENIED).length, barred = others.filter(other => fits(at, other) && outcomeOf(at, other) === DENIED).length;
  const portsOf = (from, to) => allPorts(data.cells[pairs[from * count + to]]);
  parts.push(heading('May be called by', callers.length), links(callers.map(other => [other, at, portsOf(other, at), longName(parties[other]), OUTCOMES[outcomeOf(other, at)]])),
    heading('May call', called.length), links(called.map(other => [at, other, portsOf(at, other), longName(parties[other]), OUTCOMES[outcomeOf(at, other)]])));
  if (refused + barred > 0) parts.push(h('p', {class: 'quiet'}, `Denied: ${plural(refused, 'caller', 'callers')}, ${barred} called. The list shows them with “Denied”.`));
  return parts.filter(Boolean);
}

const MOST_LINKS = 60;
function links(all) {
  const item = ([from, to, ports, name, look]) => h('li', {}, h('button', {onclick: () => explainPair(from, to)}, h('span', {class: 'dot ' + look}), h('span', {class: 'name'}, name), h('span', {class: 'ports'}, ports)));
  const list = h('ul', {class: 'links'}, all.slice(0, MOST_LINKS).map(item));
  if (all.length === 0) list.append(h('li', {class: 'quiet'}, 'nobody'));
  if (all.length > MOST_LINKS) {
    const rest = h('li', {}, h('button', {onclick: () => rest.replaceWith(...all.slice(MOST_LINKS).map(item))}, `show ${all.length - MOST_LINKS} more`));
    list.append(rest);
  }
  return list;
}

function wholePanel() {
  const tally = [0, 0, 0, 0];
  for (let from = 0; from < count; from++) for (let to = 0; to < count; to++) if (fits(from, to)) tally[outcomeOf(from, to)]++;
  const total = tally[DENIED] + tally[SOME] + tally[EVERY];
  const share = number => total === 0 ? '0%' : `${(number / total * 100).toFixed(number === total || number === 0 ? 0 : 1)}%`;
  const bar = (outcome, colour) => { const part = h('span', {}); part.style.width = share(tally[outcome]); part.style.background = `var(${colour})`; return part; };
  const figure = (outcome, words) => [h('span', {class: 'dot ' + OUTCOMES[outcome]}), h('dt', {}, words), h('dd', {}, `${tally[outcome].toLocaleString('en')} `, h('span', {class: 'quiet'}, share(tally[outcome])))];
  const workloads = parties.filter(party => party.kind === 'workload');
  const open = workloads.filter(party => !party.isolatedIngress), loose = workloads.filter(party => !party.isolatedEgress);
  const parts = [h('h2', {}, 'Who can talk to whom'), h('p', {class: 'quiet'}, `${plural(total, 'pair', 'pairs')} of a caller and a called one${isFiltered() ? ' fit the filters' : ''}, as the policies say${shown.port ? ' of ' + portWords() : ''}.`),
    h('div', {class: 'bars', 'aria-hidden': 'true'}, bar(EVERY, '--cell-every'), bar(SOME, '--cell-some')),
    h('dl', {class: 'figures'}, figure(EVERY, shown.port ? 'allowed' : 'allowed on every port'), figure(SOME, shown.port ? 'allowed on part of them' : 'allowed on some ports'), figure(DENIED, 'denied')),
    heading('Not isolated by a NetworkPolicy')];
  const names = found => links(found.map(party => { const at = parties.indexOf(party); return [at, at, '', longName(party), 'denied']; }));
  parts.push(h('p', {}, `${plural(open.length, 'workload', 'workloads')} for ingress, ${loose.length.toLocaleString('en')} for egress, of ${workloads.length.toLocaleString('en')}.`));
  if (data.denials.length > 0 || data.elsewhere > 0) {
    const denials = [...data.denials].sort((a, b) => b.count - a.count);
    parts.push(heading('Recorded drops', denials.reduce((sum, denial) => sum + denial.count, 0)),
      links(denials.map(denial => [denial.from, denial.to, `${denial.port} ×${denial.count.toLocaleString('en')}`, `${longName(parties[denial.from])} → ${longName(parties[denial.to])}`, 'recorded'])));
    if (data.elsewhere > 0) parts.push(h('p', {class: 'quiet'}, `${plural(data.elsewhere, 'more drop has', 'more drops have')} an end that is not on this map.`));
  }
  parts.push(heading('How to read it'), h('p', {class: 'quiet'}, 'Choose a workload for whom it may call and who may call it; choose a pair for the rules that say so. '), h('button', {class: 'plain', onclick: showHelp}, 'Keys and colours'));
  return parts;
}
