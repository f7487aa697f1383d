// The shop front: what is asked when, and what becomes of the answer.

import { Away, Refused, ask } from "/page/asking.js";
import { calm, cardOf, causesOf, element, nameOf, reasonOf, showCards } from "/page/cards.js";
import { eventsOf, keepVisit, newVisit, purchaseOf, readVisit, whoOf } from "/page/visit.js";

const PAGE = 12, MOST = 100, TYPING_MS = 250, LOOK_MS = 1_500;
const at = (id) => document.getElementById(id);
const lists = { found: { shown: PAGE, stop: null }, offered: { shown: PAGE, stop: null } };
let visit = readVisit(), looking = null, typing = null;

const things = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const say = (words) => { at("said").textContent = words; };

// --- two lists ---

const refresh = () => Promise.all([offer(), search()]);

function offer() {
  const body = { ...whoOf(visit), reasons: true, filters: { ...filters(), hide_bought: at("hide").checked } };
  return fill("offered", "/v1/recommend", body, ({ items, personalized }) => {
    at("offered-title").textContent = personalized ? "For you" : "For everyone";
    if (!items.length) return "Nothing passes the filters.";
    const many = things(items.length, "product");
    if (personalized) return `${many}, ranked for you by the ${things(visit.bought.length, "thing")} you bought.`;
    if (!visit.isPersonal) return `${many}. Personal ranking is off, and everyone gets this list.`;
    if (visit.bought.length) return `${many}, the same for everyone: nothing about you was used.`;
    return `${many}, the same for everyone. Buy something, and the list becomes yours.`;
  });
}

function search() {
  const query = at("query").value.trim();
  at("found").hidden = !query;
  if (!query) return lists.found.stop?.abort();
  at("found-title").textContent = `Results for “${query}”`;
  return fill("found", "/v1/search", { ...whoOf(visit), query, filters: filters() }, ({ items, personalized }) => {
    if (!items.length) return "Nothing found. Try other words, or fewer filters.";
    const many = things(items.length, "product");
    return personalized ? `${many}, best first. What you bought has a say in the order.` : `${many}, best first, in the same order for everyone.`;
  });
}

// Ask for a list and show it. A later question puts an earlier one out of the way; a list stays until there is another.
async function fill(name, path, body, note) {
  const section = at(name), list = section.querySelector("ol"), stop = new AbortController();
  lists[name].stop?.abort();
  lists[name].stop = stop;
  list.setAttribute("aria-busy", "true");
  try {
    const answer = await ask(path, { ...body, k: lists[name].shown, details: true }, stop.signal);
    section.querySelector(".note").textContent = note(answer);
    show(name, answer.items, body.query);
    if (answer.model !== at("model").textContent) await tellPromise();
    recovered();
  } catch (error) {
    if (stop.signal.aborted) return;
    list.removeAttribute("aria-busy");
    if (error instanceof Away) return goneAway(error);
    if (!(error instanceof Refused)) throw error;
    section.querySelector(".note").textContent = `The service says no. ${error.message}.`;
    show(name, [], body.query);
  }
}

function show(name, items, query) {
  const titles = visit.bought.map((one) => one.title), bought = new Set(visit.bought.map((one) => one.item_id));
  const does = { mayBuy: visit.isPersonal, onBuy: (item) => buy(item, query), onWhy: explain };
  showCards(at(name).querySelector("ol"), items.map((item) => cardOf(item, { titles, isBought: bought.has(item.item_id), ...does })));
  at(name).querySelector(".more").hidden = items.length < lists[name].shown || lists[name].shown >= MOST;
}

async function showMore(name) {
  const list = at(name).querySelector("ol"), before = list.children.length;
  lists[name].shown = Math.min(MOST, lists[name].shown + PAGE);
  await (name === "found" ? search() : offer());
  list.children[before]?.querySelector("button:enabled")?.focus();
}

// --- the visitor ---

async function buy(item, query) {
  visit.bought.push(purchaseOf(item, query));
  showVisit();
  say(`Bought: ${nameOf(item)}.`);
  if (await send()) await refresh();
}

// Send what has not been; whether the lists can be asked for now.
async function send() {
  const waiting = visit.bought.filter((one) => !one.isSent);
  if (!waiting.length || !visit.isPersonal) return true;
  try {
    const { forgotten } = await ask("/v1/events", { events: eventsOf(visit, waiting) });
    waiting.forEach((one) => { one.isSent = true; });
    if (forgotten) say("The shop has forgotten this id and kept nothing. Forget me gives you a new one.");
  } catch (error) {
    if (error instanceof Away) goneAway(error);
    if (!(error instanceof Refused)) return false;
    visit.bought = visit.bought.filter((one) => !waiting.includes(one));
    say(`The service did not take it. ${error.message}.`);
  } finally {
    showVisit();
  }
  return true;
}

function takeOut(one) {
  const place = visit.bought.indexOf(one);
  visit.bought.splice(place, 1);
  visit.isTrimmed = true;
  showVisit();
  const left = at("bought").querySelectorAll("button");
  (left[Math.min(visit.bought.length - place, left.length - 1)] ?? at("you")).focus();
  say(`Taken out: ${nameOf(one)}.`);
  return refresh();
}

function forgetMe() {
  const old = visit, command = element("code", {}, `fedrec forget STORE --user ${old.id}`);
  visit = newVisit({ isPersonal: old.isPersonal });
  at("query").value = "";
  showVisit();
  const isKept = old.bought.length || old.isTrimmed;
  const told = ["This page has forgotten you and made a new id. What you bought stays in the shop's store, under the old id. Only the shop can delete it there, with ", command];
  at("forgotten").replaceChildren(...(isKept ? told : ["This page has made a new id. Nothing had been sent under the old one."]));
  say(at("forgotten").textContent);
  return refresh();
}

function showVisit() {
  keepVisit(visit);
  const has = visit.bought.length > 0;
  at("visitor").textContent = visit.id;
  at("count").textContent = String(visit.bought.length);
  at("personal").checked = visit.isPersonal;
  at("personal-means").textContent = visit.isPersonal
    ? "On: the lists look at what you bought here. Each purchase is sent under this tab's id, with the words you searched for."
    : "Off: everyone gets these lists. Nothing is sent but what you search for and filter by, without an id, so you cannot buy.";
  for (const id of ["kept", "hide-label"]) at(id).hidden = !has;
  at("nothing").hidden = has;
  at("bought").replaceChildren(...visit.bought.map((one) => {
    const drop = element("button", { type: "button", class: "drop", "aria-label": `Take out: ${nameOf(one)}` }, "Take out");
    drop.addEventListener("click", () => takeOut(one));
    return element("li", {}, element("span", {}, nameOf(one), one.isSent ? "" : element("i", {}, " (not sent yet)")), drop);
  }).reverse());
}

async function explain(item) {
  const known = visit.bought.map((one) => one.title);
  at("why-title").textContent = nameOf(item);
  try {
    const answer = await ask("/v1/explain", { ...whoOf(visit), item: item.item_id });
    at("why-reason").replaceChildren(...reasonOf(answer.item.reason, known));
    at("why-causes").replaceChildren(...causesOf(answer));
  } catch (error) {
    if (error instanceof Away) goneAway(error);
    else if (!(error instanceof Refused)) throw error;
    at("why-reason").textContent = error.message;
    at("why-causes").replaceChildren();
  }
  at("why").showModal();
}

// --- the service ---

async function tellPromise() {
  const { statement, model, items } = await ask("/v1/statement");
  at("statement").textContent = statement;
  at("model").textContent = model;
  at("items").textContent = items.toLocaleString();
}

function goneAway(error) {
  const trouble = at("trouble"), words = `${error.message} This page tries again by itself.`;
  if (trouble.hidden || trouble.firstElementChild.textContent !== words) trouble.firstElementChild.textContent = words;
  trouble.hidden = false;
  looking ??= setTimeout(lookAgain, Math.max(LOOK_MS, error.retry_s * 1_000));
}

async function lookAgain() {
  clearTimeout(looking);
  looking = null;
  try {
    await ask("/healthz");
  } catch (error) {
    return goneAway(error instanceof Away ? error : new Away(error.message));
  }
  await learnFilters();
  if (await send()) await refresh();
}

function recovered() {
  if (at("trouble").hidden || looking) return;
  if (at("trouble").contains(document.activeElement)) at("products").focus();
  at("trouble").hidden = true;
  say("The service answers again.");
}

function filters() {
  const number = (id) => (Number.isFinite(at(id).valueAsNumber) && at(id).validity.valid ? at(id).valueAsNumber : undefined);
  return { category: at("category").value || undefined, min_price: number("low"), max_price: number("high") };
}

// Only filters that this catalogue can answer are shown.
async function learnFilters() {
  if (!at("filters").hidden) return;
  const { categories, prices } = await ask("/v1/catalogue").catch(() => ({}));
  at("category").append(...(categories ?? []).map((name) => element("option", { value: name }, calm(name))));
  at("by-category").hidden = !categories;
  for (const label of document.querySelectorAll(".by-price")) label.hidden = !prices;
  if (prices) [at("low").placeholder, at("high").placeholder] = [String(prices.lowest), String(prices.highest)];
  at("filters").hidden = !categories && !prices;
}

function filtered() {
  at("high").min = at("low").validity.valid && at("low").value || "0";
  const unread = ["low", "high"].filter((id) => !at(id).validity.valid);
  at("unread").textContent = unread.length ? "A price is left out: expected numbers, the second no less than the first." : "";
  at("unfiltered").hidden = !unread.length && Object.values(filters()).every((value) => value === undefined);
  return refresh();
}

function soon(work) {
  clearTimeout(typing);
  typing = setTimeout(work, TYPING_MS);
}

function searchAnew() {
  clearTimeout(typing);
  lists.found.shown = PAGE;
  return search();
}

at("query").addEventListener("input", () => soon(searchAnew));
at("search").addEventListener("submit", (event) => { event.preventDefault(); searchAnew(); });
at("filters").addEventListener("input", () => soon(filtered));
at("filters").addEventListener("submit", (event) => { event.preventDefault(); filtered(); });
at("filters").addEventListener("reset", () => { setTimeout(filtered); at("low").focus(); });
at("personal").addEventListener("change", async () => {
  visit.isPersonal = at("personal").checked;
  showVisit();
  if (await send()) await refresh();
});
at("hide").addEventListener("change", offer);
at("forget").addEventListener("click", forgetMe);
at("trouble").querySelector("button").addEventListener("click", lookAgain);
for (const name of Object.keys(lists)) at(name).querySelector(".more").addEventListener("click", () => showMore(name));

showVisit();
await Promise.all([learnFilters(), send().then((isIn) => isIn && refresh())]);
