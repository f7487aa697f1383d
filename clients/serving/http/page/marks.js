// A swatch for a product without a picture: colour and pattern from what its title says, else from the title itself.

const COLOURS = [ // words of a title, then hue, saturation and lightness in percent
  [/\b(red|ruby|scarlet|cherry|strawberry|retrospot)\b/, 2, 62, 50],
  [/\b(pink|rose|raspberry|blossom)\b/, 338, 58, 62],
  [/\b(orange|copper|apricot|pumpkin)\b/, 24, 75, 54],
  [/\b(yellow|gold|golden|lemon|brass|honey)\b/, 44, 72, 54],
  [/\b(green|mint|olive|regency|garden|lime)\b/, 148, 36, 42],
  [/\b(turquoise|aqua|teal|jade)\b/, 182, 46, 42],
  [/\b(blue|navy|denim|sky|skies|sea)\b/, 214, 52, 48],
  [/\b(purple|lilac|lavender|violet|plum)\b/, 276, 36, 54],
  [/\b(brown|wood|wooden|wicker|chocolate|cocoa|leather|jute)\b/, 26, 38, 40],
  [/\b(white|ivory|cream|vanilla|pearl)\b/, 38, 32, 84],
  [/\b(black|charcoal|slate|chalkboard|blackboard)\b/, 220, 10, 28],
  [/\b(silver|grey|gray|zinc|metal|steel|tin|pewter)\b/, 212, 10, 58],
  [/\b(glass|crystal|ice)\b/, 196, 42, 72],
];
const DOT = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z";
const RING = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0zM-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z";
const HEART = "M0 7C-11-1-7-9 0-4 7-9 11-1 0 7z";
const STAR = "M0-8 2.2-2.8 7.6-2.5 3.4 1 4.7 6.4 0 3.4-4.7 6.4-3.4 1-7.6-2.5-2.2-2.8z";
const PETALS = "M0 0C-4-4-4-8 0-9 4-8 4-4 0 0 4-4 8-4 9 0 8 4 4 4 0 0 4 4 4 8 0 9-4 8-4 4 0 0-4 4-8 4-9 0-8-4-4-4 0 0z";
const LEAF = "M-7 7C-7-4 0-8 8-8 8 0 4 7-7 7z";
const STRIPE = "M-4-12h8v24h-8z";
const SQUARE = "M-12-12h12v12h-12zM0 0h12v12h-12z";
const DIAMOND = "M0-8L6 0 0 8-6 0z";
const CROSS = "M-2-8h4v6h6v4h-6v6h-4v-6h-6v-4h6z";
const PATTERNS = [
  [/spot|dot|polka/, DOT],
  [/strip|rail/, STRIPE],
  [/gingham|check|tile|board|box/, SQUARE],
  [/heart|love|valentine/, HEART],
  [/star|christmas|snow|reindeer|santa/, STAR],
  [/flower|rose|daisy|floral|blossom|butterfl/, PETALS],
  [/garden|tree|leaf|leaves|wood|herb|bird/, LEAF],
  [/mug|cup|tea|plate|bowl|cake|clock|jar|bottle|dish/, RING],
];
const OTHERS = [DOT, RING, DIAMOND, CROSS, LEAF, STRIPE];
const WIDE = 160, HIGH = 96, STEP = 26;

// FNV-1a, 32 bits: the same text always looks the same.
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (const letter of text) hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  return hash >>> 0;
}

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export function markOf({ title, category }) {
  const words = title.toLowerCase(), hash = hashOf(title);
  const [, hue, full, light] = COLOURS.find(([named]) => named.test(words)) ?? [null, hashOf(category ?? title) % 360, 34, 50];
  const path = (PATTERNS.find(([named]) => named.test(words)) ?? [null, OTHERS[hash % OTHERS.length]])[1];
  const mark = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "mark", "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" });
  mark.style.setProperty("--hue", hue);
  mark.style.setProperty("--full", `${full}%`);
  mark.style.setProperty("--light", `${light}%`);
  mark.classList.toggle("pale", light > 66);
  const turn = path === STRIPE || path === SQUARE ? 0 : (hash >>> 8) % 4 * 15 - 22;
  const isTiled = path === STRIPE || path === SQUARE;
  for (let row = 0, y = 10; y < HIGH + STEP; row++, y += isTiled ? 24 : STEP * 0.8) {
    for (let x = isTiled || row % 2 ? 8 : 8 + STEP / 2; x < WIDE + STEP; x += isTiled ? 24 : STEP) {
      mark.append(shape("path", { d: path, "fill-rule": "evenodd", transform: `translate(${x} ${y}) rotate(${turn})` }));
    }
  }
  return mark;
}
