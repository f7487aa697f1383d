// What the page knows of a visitor: a random id and what they bought. It lives in this tab's sessionStorage.

const KEPT = "fedrec-visit";
const MOST_ASKED = 1_000; // of a history, by the service

export function newVisit({ isPersonal = true } = {}) {
  return { id: `visitor-${crypto.randomUUID()}`, bought: [], isTrimmed: false, isPersonal };
}

export function readVisit() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    return Array.isArray(kept?.bought) ? kept : newVisit();
  } catch {
    return newVisit();
  }
}

// Where the browser keeps nothing, a visit lasts as long as the page.
export function keepVisit(visit) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(visit));
  } catch {
    // it may be forbidden or full
  }
}

// A purchase that is yet to be sent. With an id of its own it counts once, however often it has to be sent.
export function purchaseOf(item, query) {
  return { item_id: item.item_id, title: item.title, query: query || undefined, event_id: crypto.randomUUID(), isSent: false };
}

export function eventsOf(visit, purchases) {
  return purchases.map(({ item_id, query, event_id }) => ({ user: visit.id, item: item_id, kind: "purchase", query, event_id }));
}

// Whose list is asked for: nobody's; the visitor's as the store knows them; or what is left once something was taken out.
export function whoOf(visit) {
  if (!visit.isPersonal) return { personalized: false };
  if (visit.isTrimmed) return { history: visit.bought.slice(-MOST_ASKED).map((one) => one.item_id) };
  return { user: visit.id };
}
