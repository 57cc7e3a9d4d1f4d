/** ARGV: id. */
export declare const GET = "return redis.call('HGET', KEYS[2], ARGV[1])";
/** ARGV: id, number, JSON. */
export declare const PUT = "\nredis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])\nredis.call('HSET', KEYS[2], ARGV[1], ARGV[3])\nreturn 1";
/**
 * ARGV: count, offset, and a place (number, id) to begin after. The place may be gone: it is put
 * back for as long as its rank is asked for, which nobody sees.
 */
export declare const LIST = "\nlocal start = tonumber(ARGV[2])\nif ARGV[3] then\n  local score = redis.call('ZSCORE', KEYS[1], ARGV[4])\n  if score and tonumber(score) == tonumber(ARGV[3]) then\n    start = redis.call('ZRANK', KEYS[1], ARGV[4]) + 1\n  else\n    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])\n    start = redis.call('ZRANK', KEYS[1], ARGV[4])\n    if score then redis.call('ZADD', KEYS[1], score, ARGV[4]) else redis.call('ZREM', KEYS[1], ARGV[4]) end\n    if score and tonumber(score) < tonumber(ARGV[3]) then start = start + 1 end\n  end\nend\nlocal ids = redis.call('ZRANGE', KEYS[1], start, start + tonumber(ARGV[1]) - 1)\nlocal found = {}\nfor from = 1, #ids, 1000 do\n  local part = redis.call('HMGET', KEYS[2], unpack(ids, from, math.min(from + 999, #ids)))\n  for i = 1, #part do found[#found + 1] = part[i] end\nend\nreturn found";
/** ARGV: id, index, JSON. */
export declare const INSERT = "\nlocal score = redis.call('ZSCORE', KEYS[1], ARGV[1])\nif score then\n  if tonumber(score) == tonumber(ARGV[2]) then return 'same' end\n  return 'id'\nend\nif redis.call('ZCOUNT', KEYS[1], ARGV[2], ARGV[2]) > 0 then return 'index' end\nredis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])\nredis.call('HSET', KEYS[2], ARGV[1], ARGV[3])\nreturn 'new'";
/** The highest number. */
export declare const LAST = "\nlocal last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')\nreturn last[2] or '0'";
/** ARGV: id. */
export declare const REMOVE = "\nredis.call('ZREM', KEYS[1], ARGV[1])\nreturn redis.call('HDEL', KEYS[2], ARGV[1])";
/** Everything of a session's events. */
export declare const REMOVE_EVENTS = "return redis.call('DEL', KEYS[1], KEYS[2])";
