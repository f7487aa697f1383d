// Questions to the service, and the two ways in which it can say no.

const PATIENCE_MS = 15_000;

// It will not, and asking again changes nothing.
export class Refused extends Error {}

// It cannot, for now; `retry_s` is when to come back.
export class Away extends Error {
  constructor(message, retry_s = 0) {
    super(message);
    this.retry_s = retry_s;
  }
}

// One question; a body makes it a POST. Where `stop` fires, the error is the browser's own.
export async function ask(path, body, stop) {
  const sent = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const signal = stop ? AbortSignal.any([stop, patience]) : patience;
  let answer, said;
  try {
    answer = await fetch(path, { ...sent, signal, cache: "no-store", credentials: "omit", redirect: "error" });
    said = await answer.json();
  } catch (error) {
    if (stop?.aborted) throw error;
    throw new Away("The service does not answer.");
  }
  if (answer.ok) return said;
  const why = said.error?.message ?? `status ${answer.status}`;
  if (answer.status < 500 && answer.status !== 429) throw new Refused(why);
  throw new Away(`The service cannot answer now: ${why}.`, Number(answer.headers.get("retry-after")) || 0);
}
