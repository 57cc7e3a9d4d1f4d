import type { ListPage, ListPageRequest } from "sandbox-agent";

/** How many items a page has when the request does not say. */
export const DEFAULT_LIMIT = 100;

/** A place in an order: its number, then its id. */
export interface Place {
  readonly number: number;
  readonly id: string;
}

/** Which items a store is asked for: those after a place, or after so many. */
export interface Range {
  readonly after?: Place;
  readonly offset: number;
  readonly limit: number;
}

const KEYSET = /^k1:(-?\d+):([\s\S]*)$/;

/**
 * What a page request means. A cursor of ours names the last item of the page before it, so that
 * what is inserted or evicted elsewhere moves nothing. A cursor of digits is an offset, as the SDK's
 * own drivers have it; what is neither begins at the start.
 */
export function range(request: ListPageRequest | undefined): Range {
  const limit = request?.limit;
  const size = typeof limit === "number" && Number.isFinite(limit) && limit >= 1 ? Math.floor(limit) : DEFAULT_LIMIT;
  const cursor = typeof request?.cursor === "string" ? request.cursor : "";
  const [, number, id] = KEYSET.exec(cursor) ?? [];
  if (number !== undefined && id !== undefined && Number.isSafeInteger(Number(number))) {
    return { after: { number: Number(number), id }, offset: 0, limit: size };
  }
  const offset = Number.parseInt(cursor, 10);
  return { offset: Number.isSafeInteger(offset) && offset > 0 ? offset : 0, limit: size };
}

/** The page of what a store found; it was asked for one item more than fits. */
export function page<T>(found: T[], limit: number, place: (item: T) => Place): ListPage<T> {
  const items = found.slice(0, limit);
  const last = items.at(-1);
  if (found.length <= limit || last === undefined) return { items };
  const { number, id } = place(last);
  return { items, nextCursor: `k1:${number}:${id}` };
}

/** The order of two places. */
export function compare(a: Place, b: Place): number {
  if (a.number !== b.number) return a.number - b.number;
  if (a.id === b.id) return 0;
  return a.id < b.id ? -1 : 1;
}

/** What `range` selects of a list that is in order, and one item more. */
export function select<T>(sorted: readonly T[], { after, offset, limit }: Range, place: (item: T) => Place): T[] {
  if (!after) return sorted.slice(offset, offset + limit + 1);
  const start = sorted.findIndex((item) => compare(place(item), after) > 0);
  return start < 0 ? [] : sorted.slice(start, start + limit + 1);
}
