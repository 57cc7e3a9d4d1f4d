// Each kind of thing is a sorted set (number → id) and a hash (id → JSON): KEYS[1] and KEYS[2].
// A sorted set orders what has the same number by its bytes, which is the order of ids.

/** ARGV: id. */
export const GET = `return redis.call('HGET', KEYS[2], ARGV[1])`;

/** ARGV: id, number, JSON. */
export const PUT = `
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1`;

/**
 * ARGV: count, offset, and a place (number, id) to begin after. The place may be gone: it is put
 * back for as long as its rank is asked for, which nobody sees.
 */
export const LIST = `
local start = tonumber(ARGV[2])
if ARGV[3] then
  local score = redis.call('ZSCORE', KEYS[1], ARGV[4])
  if score and tonumber(score) == tonumber(ARGV[3]) then
    start = redis.call('ZRANK', KEYS[1], ARGV[4]) + 1
  else
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
    start = redis.call('ZRANK', KEYS[1], ARGV[4])
    if score then redis.call('ZADD', KEYS[1], score, ARGV[4]) else redis.call('ZREM', KEYS[1], ARGV[4]) end
    if score and tonumber(score) < tonumber(ARGV[3]) then start = start + 1 end
  end
end
local ids = redis.call('ZRANGE', KEYS[1], start, start + tonumber(ARGV[1]) - 1)
local found = {}
for from = 1, #ids, 1000 do
  local part = redis.call('HMGET', KEYS[2], unpack(ids, from, math.min(from + 999, #ids)))
  for i = 1, #part do found[#found + 1] = part[i] end
end
return found`;

/** ARGV: id, index, JSON. */
export const INSERT = `
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score then
  if tonumber(score) == tonumber(ARGV[2]) then return 'same' end
  return 'id'
end
if redis.call('ZCOUNT', KEYS[1], ARGV[2], ARGV[2]) > 0 then return 'index' end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 'new'`;

/** The highest number. */
export const LAST = `
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
return last[2] or '0'`;

/** ARGV: id. */
export const REMOVE = `
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])`;

/** Everything of a session's events. */
export const REMOVE_EVENTS = `return redis.call('DEL', KEYS[1], KEYS[2])`;
