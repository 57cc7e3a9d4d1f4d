import type { ListPage, ListPageRequest } from "sandbox-agent";
/** How many items a page has when the request does not say. */
export declare const DEFAULT_LIMIT = 100;
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
/**
 * What a page request means. A cursor of ours names the last item of the page before it, so that
 * what is inserted or evicted elsewhere moves nothing. A cursor of digits is an offset, as the SDK's
 * own drivers have it; what is neither begins at the start.
 */
export declare function range(request: ListPageRequest | undefined): Range;
/** The page of what a store found; it was asked for one item more than fits. */
export declare function page<T>(found: T[], limit: number, place: (item: T) => Place): ListPage<T>;
/** The order of two places. */
export declare function compare(a: Place, b: Place): number;
/** What `range` selects of a list that is in order, and one item more. */
export declare function select<T>(sorted: readonly T[], { after, offset, limit }: Range, place: (item: T) => Place): T[];
