
// Controls, keys, and drawing what has changed.

function draw() {
  for (const view of ['board', 'matrix', 'list']) {
    byId(view).hidden = state.view !== view;
    byId('tab-' + view).setAttribute('aria-selected', String(state.view === view));
    byId('tab-' + view).tabIndex = state.view === view ? 0 : -1;
  }
  const isPairOnly = drawn.key === filterKey();
  drawn.key = filterKey();
  const some = state.view === 'list' && isPairOnly ? (markRow(), drawn.some) : {board: drawBoard, matrix: drawMatrix, list: drawList}[state.view]();
  drawn.some = some;
  byId(state.view).hidden = !some;
  byId('nothing').hidden = some;
  drawPanel();
  for (const name of ['search', 'port']) if (byId(name).value !== state[name]) byId(name).value = state[name];
  if (document.activeElement !== byId('workload')) byId('workload').value = state.focus >= 0 ? parties[state.focus].id : '';
  for (const button of byId('verdict').children) {
    button.setAttribute('aria-checked', String(button.dataset.verdict === state.verdict));
    button.tabIndex = button.dataset.verdict === state.verdict ? 0 : -1;
  }
  byId('namespaces-button').textContent = !state.namespaces ? 'all' : state.namespaces.size === 1 ? groupName([...state.namespaces][0]) : `${state.namespaces.size} of ${groups.length}`;
  for (const box of byId('namespaces').querySelectorAll('input[type="checkbox"]')) box.checked = !!state.namespaces && state.namespaces.has(box.value);
  byId('clear').hidden = !isFiltered();
  const isWrong = parsePort(state.port) === undefined;
  byId('port').setAttribute('aria-invalid', String(isWrong));
  byId('port-problem').hidden = !isWrong;
  byId('port-problem').textContent = isWrong ? `“${state.port}” is no port: write 8080, 53/UDP or 8000-8100.` : '';
}

const drawn = {key: '', some: true};
const filterKey = () => JSON.stringify([state.view, state.search, state.namespaces && [...state.namespaces], state.focus, state.port, state.verdict]);

function buildControls() {
  const workloads = parties.filter(party => party.kind === 'workload').length;
  byId('counts').textContent = `${plural(workloads, 'workload', 'workloads')} in ${plural(groups.filter(group => group !== BEYOND).length, 'namespace', 'namespaces')}`;
  byId('workloads').append(...parties.map(party => h('option', {value: party.id})));
  let typing = 0;
  const later = work => { clearTimeout(typing); typing = setTimeout(work, count > 150 ? 90 : 0); };
  byId('search').addEventListener('input', event => later(() => change({search: event.target.value})));
  byId('port').addEventListener('input', event => later(() => change({port: event.target.value})));
  byId('workload').addEventListener('input', event => {
    const at = parties.findIndex(party => party.id === event.target.value.trim());
    if (at >= 0 || !event.target.value.trim()) focusOn(at);
  });
  byId('workload').addEventListener('blur', draw);
  const verdicts = Object.entries(VERDICTS).filter(([verdict]) => verdict !== 'recorded' || data.denials.length > 0);
  byId('verdict').append(...verdicts.map(([verdict, words]) =>
    h('button', {role: 'radio', 'data-verdict': verdict, onclick: () => change({verdict})}, verdict !== 'any' && h('span', {class: 'dot ' + verdict}), words)));
  byId('verdict').addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...byId('verdict').children], next = buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  byId('clear').addEventListener('click', clearFilters);
  byId('clear-too').addEventListener('click', clearFilters);
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    tab.addEventListener('click', () => change({view: tab.dataset.view}));
    tab.addEventListener('keydown', event => {
      const other = {ArrowRight: tab.nextElementSibling, ArrowLeft: tab.previousElementSibling}[event.key];
      if (other) { other.click(); other.focus(); }
    });
  }
  byId('theme').addEventListener('click', switchTheme);
  byId('help-button').addEventListener('click', showHelp);
  buildNamespaces();
}

function buildNamespaces() {
  const popup = byId('namespaces'), button = byId('namespaces-button');
  const narrow = h('input', {type: 'search', placeholder: 'narrow down', 'aria-label': 'Narrow down the namespaces'});
  const choices = groups.map(group => h('label', {}, h('input', {type: 'checkbox', value: group}), h('span', {}, groupName(group)), h('span', {}, String(parties.filter(party => groupOf(party) === group).length))));
  popup.append(groups.length > 12 && narrow || '', ...choices, h('button', {class: 'plain', onclick: () => change({namespaces: null})}, 'All namespaces'));
  narrow.addEventListener('input', () => { for (const choice of choices) choice.hidden = !choice.textContent.toLowerCase().includes(narrow.value.toLowerCase()); });
  popup.addEventListener('change', event => {
    if (event.target.type !== 'checkbox') return;
    const chosen = new Set([...popup.querySelectorAll('input[type="checkbox"]:checked')].map(box => box.value));
    change({namespaces: chosen.size === 0 || chosen.size === groups.length ? null : chosen});
  });
  const open = isOpen => { popup.hidden = !isOpen; button.setAttribute('aria-expanded', String(isOpen)); if (isOpen) popup.querySelector('input').focus(); };
  button.addEventListener('click', () => open(popup.hidden));
  document.addEventListener('pointerdown', event => { if (!popup.hidden && !popup.contains(event.target) && event.target !== button) open(false); });
  popup.addEventListener('keydown', event => {
    if (event.key === 'Escape') { event.stopPropagation(); open(false); button.focus(); }
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const inputs = [...popup.querySelectorAll('input')].filter(input => input.offsetParent);
    inputs[(inputs.indexOf(document.activeElement) + step + inputs.length) % inputs.length].focus();
  });
}

const isDark = () => document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? 'light' : 'dark';
  // Storage may be refused to pages from files.
  try { localStorage.setItem('observer-map-theme', document.documentElement.dataset.theme); } catch { /* the choice lasts as long as the page */ }
  repaint();
}

function repaint() { drawCurves(); paintMatrix(); }

const KEYS = [['/', 'search'], ['1 2 3', 'map, matrix, list'], ['← ↑ ↓ →', 'move among workloads, cells or rows'], ['Enter', 'choose a workload, explain a pair'], ['Escape', 'step back: the explanation, the workload, the filters'], ['d', 'light or dark'], ['?', 'this help']];

function showHelp() {
  const help = byId('help'), dot = (look, words) => h('p', {}, h('span', {class: 'dot ' + look}), ' ' + words);
  help.textContent = '';
  help.append(h('h2', {}, 'Keys and colours'), h('dl', {class: 'keys'}, KEYS.flatMap(([key, words]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, words)])),
    h('h3', {}, 'Pairs'), dot('every', 'allowed on every port'), dot('some', 'allowed on some ports'), dot('denied', 'denied'), dot('recorded', 'drops were recorded'),
    h('h3', {}, 'Workloads'), h('p', {}, '● isolated in both directions, ◐ in one, ○ in none. ←3 →5: may be called by 3, may call 5. With a workload in focus, green ones may call it, violet ones may be called.'),
    h('p', {class: 'quiet'}, 'Verdicts are those of netpol-observer’s policy engine at the time when the page was written. The page asks nobody, and sends nothing anywhere.'),
    h('button', {class: 'plain', onclick: () => help.close()}, 'Close'));
  help.showModal();
}

function stepBack() {
  if (state.pair) change({pair: null});
  else if (state.focus >= 0) focusOn(-1);
  else if (isFiltered()) clearFilters();
}

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  const isTyping = event.target.matches('input:not([type="checkbox"]):not([type="range"])');
  if (event.key === 'Escape') {
    if (isTyping) { event.target.blur(); if (event.target.value && event.target.id === 'search') change({search: ''}); } else stepBack();
    return;
  }
  if (isTyping) {
    // From the search straight to what was found.
    if (event.key === 'Enter' && event.target.id === 'search') { event.preventDefault(); enterResults(); }
    return;
  }
  const keys = {'/': () => { byId('search').focus(); byId('search').select(); }, '1': () => change({view: 'board'}), '2': () => change({view: 'matrix'}), '3': () => change({view: 'list'}), d: switchTheme, '?': showHelp};
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

function enterResults() {
  const found = {board: () => chips.find(chip => !chip.parentElement.hidden), matrix: () => byId('matrix-scroll'), list: () => byId('rows').firstElementChild}[state.view]();
  if (found) found.focus();
}

try {
  const theme = localStorage.getItem('observer-map-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch { /* as the system prefers */ }
buildBoard();
buildMatrix();
buildList();
buildControls();
recall();
apply();
draw();
addEventListener('hashchange', () => { if (location.hash.slice(1) !== ownAddress) { recall(); apply(); draw(); } });
addEventListener('resize', () => { if (state.view === 'matrix') drawMatrix(); else drawCurves(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint);
