
// The map: namespaces as boxes, workloads in them, and curves to those that the workload in focus may call and be called by.

const DENSE = 90;      // From so many parties on, chips are small.
const FEW_CURVES = 160; // Up to so many, all are drawn when nothing is in focus.
const MANY_CURVES = 120; // From so many on, those to one namespace are drawn as one.
const chips = [];
let boxes = [];
let hovered = -1;

function buildBoard() {
  const board = byId('boxes');
  if (count > DENSE) { board.classList.add('dense'); board.style.setProperty('--column', '340px'); }
  else if (count < 30) board.classList.add('wide');
  boxes = groups.map(group => {
    const members = ordered.filter(at => groupOf(parties[at]) === group);
    const list = h('ul', {});
    for (const at of members) {
      const party = parties[at];
      const isolation = [party.isolatedEgress, party.isolatedIngress].filter(Boolean).length;
      const lock = party.kind === 'workload' && h('span', {class: 'lock' + ['', ' half', ' full'][isolation], 'aria-hidden': 'true'});
      const drops = data.denials.filter(denial => denial.from === at || denial.to === at).reduce((sum, denial) => sum + denial.count, 0);
      const chip = h('button', {class: 'chip', tabindex: '-1', 'data-party': at}, lock,
        h('span', {class: 'name'}, party.kind === 'outside' ? outsideName(party) : shortName(party)), h('span', {class: 'kind'}, kindWord(party)),
        drops > 0 && h('span', {class: 'drops', title: 'recorded drops'}, drops.toLocaleString('en')), h('span', {class: 'ways'}));
      chips[at] = chip;
      list.append(h('li', {}, chip));
    }
    const heading = h('h2', {}, h('button', {'data-group': group}, groupName(group)), h('small', {}, group === BEYOND ? '' : plural(members.length, 'workload', 'workloads')));
    const element = h('section', {class: group === BEYOND ? 'box beyond' : 'box', 'aria-label': groupName(group)}, heading, list);
    return {group, members, element};
  });
  board.append(...boxes.map(box => box.element));
  board.addEventListener('click', event => {
    const chip = event.target.closest('.chip'), heading = event.target.closest('[data-group]');
    if (chip) focusOn(Number(chip.dataset.party) === state.focus ? -1 : Number(chip.dataset.party));
    else if (heading) change({namespaces: state.namespaces && state.namespaces.size === 1 && state.namespaces.has(heading.dataset.group) ? null : new Set([heading.dataset.group])});
  });
  board.addEventListener('pointerover', event => hover(event.target.closest('.chip')));
  board.addEventListener('pointerleave', () => hover(null));
  board.addEventListener('focusin', event => { if (event.target.matches('.chip')) rove(event.target); });
  board.addEventListener('keydown', moveAmongChips);
  byId('board').addEventListener('scroll', drawCurves, {passive: true});
}

function hover(chip) {
  const party = chip ? Number(chip.dataset.party) : -1;
  if (party === hovered) return;
  hovered = party;
  if (state.focus < 0) drawCurves();
}

// One chip takes the Tab key; arrows lead to the others.
function rove(chip) {
  for (const other of byId('boxes').querySelectorAll('.chip[tabindex="0"]')) other.tabIndex = -1;
  chip.tabIndex = 0;
}

function moveAmongChips(event) {
  const chip = event.target.closest('.chip');
  if (!chip || !event.key.startsWith('Arrow')) return;
  event.preventDefault();
  const from = chip.getBoundingClientRect(), [x, y] = [from.left + from.width / 2, from.top + from.height / 2];
  const isSideways = event.key === 'ArrowLeft' || event.key === 'ArrowRight', sign = event.key === 'ArrowRight' || event.key === 'ArrowDown' ? 1 : -1;
  let best = null, least = Infinity;
  for (const other of chips) {
    if (other === chip || !other.offsetParent) continue;
    const there = other.getBoundingClientRect();
    const [dx, dy] = [there.left + there.width / 2 - x, there.top + there.height / 2 - y];
    const [along, across] = isSideways ? [dx * sign, Math.abs(dy)] : [dy * sign, Math.abs(dx)];
    if (along < 4) continue;
    const distance = along + across * 3;
    if (distance < least) { least = distance; best = other; }
  }
  if (best) { best.focus(); best.scrollIntoView({block: 'nearest'}); }
}

function drawBoard() {
  const focus = state.focus;
  let some = false;
  for (const box of boxes) {
    let visible = 0, related = 0;
    for (const at of box.members) {
      const chip = chips[at], isShown = shown.inNamespaces[at] && (shown.found[at] || (state.search && focus >= 0 && at === focus));
      chip.parentElement.hidden = !isShown;
      if (!isShown) continue;
      visible++;
      const calls = focus >= 0 && fits(at, focus) && outcomeOf(at, focus) >= SOME, called = focus >= 0 && fits(focus, at) && outcomeOf(focus, at) >= SOME;
      const hasDrops = focus >= 0 && (recordedOf(at * count + focus).length > 0 || recordedOf(focus * count + at).length > 0);
      const isFaded = focus >= 0 ? !calls && !called && !hasDrops && at !== focus : shown.fits[at] === 0;
      if (!isFaded || at === focus) related++;
      chip.classList.toggle('calls', calls && at !== focus);
      chip.classList.toggle('called', called && at !== focus);
      chip.classList.toggle('focus', at === focus);
      chip.classList.toggle('faded', isFaded);
      chip.classList.toggle('ends', !!state.pair && state.pair.includes(at) && at !== focus);
      chip.setAttribute('aria-pressed', at === focus);
      const [to, by] = [shown.calls[at], shown.calledBy[at]];
      chip.lastChild.textContent = `←${by} →${to}`;
      chip.setAttribute('aria-label', `${longName(parties[at])}: may call ${to}, may be called by ${by}`);
      chip.title = `${longName(parties[at])}\nmay call ${to}, may be called by ${by}` + (parties[at].kind === 'workload' ? `\nisolated: ${isolationWords(parties[at])}` : '');
    }
    box.element.hidden = visible === 0;
    // Of a large map only the namespaces that matter to the workload in focus stay open.
    box.element.classList.toggle('folded', count > DENSE && focus >= 0 && related === 0);
    some = some || visible > 0;
  }
  if (!byId('boxes').querySelector('.chip[tabindex="0"]')) {
    const first = chips.find(chip => !chip.parentElement.hidden);
    if (first) first.tabIndex = 0;
  }
  drawCurves();
  return some;
}

const isolationWords = party => [party.isolatedIngress && 'ingress', party.isolatedEgress && 'egress'].filter(Boolean).join(' and ') || 'no';

// The pairs that are drawn now: from, to, kind.
function curvesNow() {
  const centre = state.focus >= 0 ? state.focus : hovered, curves = [];
  if (centre >= 0) {
    for (let other = 0; other < count; other++) {
      for (const [from, to, kind] of other === centre ? [] : [[other, centre, 'in'], [centre, other, 'out']]) {
        if (!fits(from, to)) continue;
        if (outcomeOf(from, to) >= SOME) curves.push([from, to, kind]);
        if (recordedOf(from * count + to).length > 0) curves.push([from, to, 'drop']);
      }
    }
    return curves.length > MANY_CURVES ? bundled(curves, centre) : curves;
  }
  let few = 0;
  for (let at = 0; at < count; at++) few += shown.calls[at];
  for (let from = 0; few <= FEW_CURVES && from < count; from++) {
    for (let to = 0; to < count; to++) {
      if (from !== to && fits(from, to) && outcomeOf(from, to) >= SOME) curves.push([from, to, 'all']);
    }
  }
  for (const key of recorded.keys()) {
    const [from, to] = [Math.floor(key / count), key % count];
    if (from !== to && fits(from, to) && recordedOf(key).length > 0) curves.push([from, to, 'drop']);
  }
  return curves;
}

// Curves within the namespace of a workload as they are, and to each other namespace one, as thick as there are many.
function bundled(curves, centre) {
  const home = groupOf(parties[centre]), single = [], bundles = new Map();
  for (const curve of curves) {
    const [from, to, kind] = curve, other = from === centre ? to : from, group = groupOf(parties[other]);
    if (group === home || kind === 'drop') { single.push(curve); continue; }
    const key = kind + group;
    if (!bundles.has(key)) bundles.set(key, [from === centre ? from : boxes.find(box => box.group === group), to === centre ? to : boxes.find(box => box.group === group), kind, 0]);
    bundles.get(key)[3]++;
  }
  return [...single, ...bundles.values()];
}

let curvesFrame = 0;
function drawCurves() {
  if (!curvesFrame) curvesFrame = requestAnimationFrame(() => { curvesFrame = 0; paintCurves(); });
}

function paintCurves() {
  const board = byId('board'), canvas = byId('curves');
  if (board.hidden) return;
  const [width, height] = [board.clientWidth, board.clientHeight], scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  }
  canvas.style.width = width + 'px';
  canvas.style.height = height + 'px';
  canvas.style.marginBottom = -height + 'px';
  const context = canvas.getContext('2d'), origin = board.getBoundingClientRect(), style = getComputedStyle(document.documentElement);
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const places = new Map();
  const place = at => {
    if (!places.has(at)) {
      // A workload, or the heading of a namespace.
      const element = typeof at === 'number' ? chips[at] : at.element.firstElementChild;
      const box = element.offsetParent && element.getBoundingClientRect();
      places.set(at, box && {left: box.left - origin.left, right: box.right - origin.left, y: box.top - origin.top + box.height / 2});
    }
    return places.get(at);
  };
  const looks = {
    in: [style.getPropertyValue('--in'), 1.4, .75], out: [style.getPropertyValue('--out'), 1.4, .75],
    all: [style.getPropertyValue('--quiet'), 1, .38], drop: [style.getPropertyValue('--drop'), 1.8, .95],
  };
  const curves = curvesNow();
  const crowd = Math.max(.25, Math.min(1, 80 / Math.max(curves.length, 1)));
  for (const [from, to, kind, many] of curves) {
    const [a, b] = [place(from), place(to)];
    if (!a || !b) continue;
    const [colour, thick, alpha] = looks[kind];
    context.strokeStyle = context.fillStyle = colour.trim();
    context.lineWidth = many ? Math.min(6, 1 + Math.sqrt(many) / 2) : thick;
    context.globalAlpha = kind === 'drop' ? alpha : alpha * crowd;
    context.setLineDash(kind === 'drop' ? [5, 4] : []);
    // Out of the side of a chip that looks at the other one; within a column out of the right and back.
    const isBeside = a.right <= b.left || b.right <= a.left, isRight = a.right <= b.left;
    const [x1, x2] = isBeside ? (isRight ? [a.right, b.left] : [a.left, b.right]) : [a.right, b.right];
    const lift = kind === 'drop' ? 3 : kind === 'in' ? -2 : 2, [y1, y2] = [a.y + lift, b.y + lift];
    const reach = isBeside ? Math.max(24, Math.abs(x2 - x1) / 2) : Math.min(90, 18 + Math.abs(y2 - y1) / 6);
    const [c1, c2] = isBeside ? (isRight ? [x1 + reach, x2 - reach] : [x1 - reach, x2 + reach]) : [x1 + reach, x2 + reach];
    context.beginPath();
    context.moveTo(x1, y1);
    // Past the boxes between, rather than along a row of theirs.
    const bow = isBeside ? Math.min(110, Math.max(0, Math.abs(x2 - x1) - 160) / 3) * (y1 + y2 > height ? -1 : 1) : 0;
    context.bezierCurveTo(c1, y1 + bow, c2, y2 + bow, x2, y2);
    context.stroke();
    const tip = isBeside && isRight ? -1 : 1;
    context.setLineDash([]);
    context.beginPath();
    context.moveTo(x2, y2);
    context.lineTo(x2 + tip * 7, y2 - 3.5);
    context.lineTo(x2 + tip * 7, y2 + 3.5);
    context.fill();
  }
  context.globalAlpha = 1;
}
