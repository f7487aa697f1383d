// What is shown of a product. Text from the service enters the page as text alone.

import { markOf } from "/page/marks.js";

const FOUND_BY = { words: "its words", meaning: "its meaning" };
const EFFECTS = { raises: "speaks for it", lowers: "speaks against it", none: "changes nothing" };

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Titles that shout are read out in a calm voice: capitals become small where there is nothing else.
export function calm(title) {
  if (!title || /\p{Ll}/u.test(title.replace(/\b\d+\p{L}+\b/gu, ""))) return title;
  const small = title.replace(/(?<![\p{L}\d])\p{Lu}{2,}(?!\d)|['’]\p{Lu}\b/gu, (word) => word.toLowerCase());
  return small.charAt(0).toUpperCase() + small.slice(1);
}

export function nameOf(item) {
  return calm(item.title) || item.item_id;
}

// A reason with the titles in it set apart; `known` are titles that may be named.
export function reasonOf(reason, known) {
  const text = reason.charAt(0).toUpperCase() + reason.slice(1);
  const named = known.filter((title) => title && text.includes(title)).sort((a, b) => b.length - a.length)[0];
  if (!named) return [text];
  const at = text.indexOf(named);
  return [text.slice(0, at), element("b", {}, calm(named)), text.slice(at + named.length)];
}

function foundBy(parts) {
  const found = parts.filter((part) => FOUND_BY[part]).map((part) => FOUND_BY[part]);
  const says = found.length ? `Found by ${found.join(" and ")}` : "Found";
  return parts.includes("person") ? `${says}, placed by what you bought` : says;
}

export function priceOf(price) {
  return price.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

export function cardOf(item, { titles, isBought, mayBuy, onBuy, onWhy }) {
  const name = nameOf(item);
  const facts = [item.category && calm(item.category), item.price !== undefined && priceOf(item.price)].filter(Boolean);
  const why = item.reason ? reasonOf(item.reason, titles) : [foundBy(item.found_by ?? [])];
  const buy = element("button", { class: "soft", type: "button", "data-does": "buy", disabled: !mayBuy, "aria-label": `${isBought ? "Buy again" : "Buy"}: ${name}` });
  buy.textContent = isBought ? "Buy again" : "Buy";
  buy.addEventListener("click", () => onBuy(item));
  const ask = element("button", { type: "button", "data-does": "why", "aria-haspopup": "dialog", "aria-label": `Why? ${name}` }, "Why?");
  ask.addEventListener("click", () => onWhy(item));
  const card = element("li", { class: "card", "data-item": item.item_id }, markOf({ ...item, title: name }));
  const text = element("div", { class: "text" }, element("h3", {}, name));
  if (facts.length) text.append(element("p", { class: "facts" }, facts.join(" · ")));
  text.append(element("p", { class: "reason" }, ...why));
  card.append(text, element("div", { class: "does" }, buy, ask));
  return card;
}

// One in place of the other, with the keyboard where it was: on the same product, else on the same place of the list.
export function showCards(list, cards) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const before = focused && { does: focused.dataset.does, card: focused.closest("li") };
  const place = before && [...list.children].indexOf(before.card);
  list.replaceChildren(...cards);
  list.removeAttribute("aria-busy");
  if (!before) return;
  const next = cards.find((card) => card.dataset.item === before.card.dataset.item) ?? cards[Math.min(place, cards.length - 1)];
  next?.querySelector(`[data-does="${before.does}"]:enabled`)?.focus({ preventScroll: true });
}

export function causesOf(answer) {
  if (!answer.causes.length) {
    const why = answer.personalized ? "Nothing that you bought moves it." : "This is the same for everyone. Nothing about you was used.";
    return [element("p", { class: "small" }, why)];
  }
  const rows = answer.causes.map((cause) => {
    const effect = element("span", { class: `effect ${cause.effect}` }, EFFECTS[cause.effect]);
    return element("li", {}, element("span", {}, nameOf(cause)), effect);
  });
  const how = "Strongest first. Each one was taken away in turn, and the product scored again without it.";
  return [element("h3", {}, "What you bought, and what it does here"), element("ol", { class: "causes" }, ...rows), element("p", { class: "small" }, how)];
}
