//! What Redis does by itself, atomically and on its own clock: six small scripts.
//!
//! A key that holds another type than ours is not ours and blocks the board; it is deleted.

use ::redis::{Cmd, Script};

/// Shared by the scripts: the server's time, the members that are too old, whole numbers compared
/// as text (a Lua number would round them).
const COMMON: &str = r"
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function show(n) return string.format('%.0f', n) end
local function ours(key, kind)
  local t = redis.call('TYPE', key).ok
  if t ~= 'none' and t ~= kind then redis.call('DEL', key) end
end
local function digits(s)
  if not s or not string.match(s, '^%d+$') then return nil end
  s = string.gsub(s, '^0+', '')
  return s
end
local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end
local function sweep(board, seen, report, now, ttl)
  local dead = redis.call('ZRANGEBYSCORE', seen, '-inf', show(now - ttl))
  for _, member in ipairs(dead) do
    redis.call('ZREM', seen, member)
    redis.call('ZREM', board, member)
    redis.call('HDEL', report, member)
  end
end
";

/// KEYS board seen report load writer; ARGV ttl, plain expiry, board expiry, channel, service,
/// `board` or `plain`, writer, then five per report: instance, score, counts, seq, source. Answers how many were new.
const RECORD: &str = r"
local ttl, kind, plain = tonumber(ARGV[1]), ARGV[6], ARGV[6] == 'plain'
ours(KEYS[5], 'string'); ours(KEYS[1], 'zset'); ours(KEYS[2], 'zset'); ours(KEYS[3], 'hash'); ours(KEYS[4], 'hash')
local now, new, told = now_ms(), 0, {}
local latest = now
sweep(KEYS[1], KEYS[2], KEYS[3], now, ttl)
local BOARD, PLAIN = '^%S+ %S+ %S+ (%S+) (%d+)', '^%S+ %S+ %S+ %S+ (%S+) (%d+)'
local function last_of(instance)
  local text, pattern = redis.call('HGET', KEYS[3], instance), BOARD
  if not text then text, pattern = redis.call('HGET', KEYS[4], instance), PLAIN end
  if not text then return nil, nil end
  local seq, at = string.match(text, pattern)
  return seq, tonumber(at)
end
for i = 8, #ARGV, 5 do
  local instance, score, counts, seq, source = unpack(ARGV, i, i + 4)
  local at, take = now, true
  local last_seq, last_at = last_of(instance)
  if last_at and now - last_at < ttl and last_at - now < ttl then
    local a, b = digits(seq), digits(last_seq)
    if a and b and not above(a, b) then take = false end
    if seq == '-' and b then seq = last_seq end
    if last_at >= at then at = last_at + 1 end
  end
  if take then
    new = new + 1
    local value = counts .. ' ' .. seq .. ' ' .. show(at) .. ' ' .. source
    latest = math.max(latest, at)
    told[new] = instance .. ' ' .. score .. ' ' .. value
    -- A service that gains or loses its balancer leaves nothing under the other keys.
    if plain then
      redis.call('HSET', KEYS[4], instance, score .. ' ' .. value)
      if redis.call('HDEL', KEYS[3], instance) > 0 then
        redis.call('ZREM', KEYS[1], instance)
        redis.call('ZREM', KEYS[2], instance)
      end
    else
      redis.call('HSET', KEYS[3], instance, value)
      redis.call('HDEL', KEYS[4], instance)
      redis.call('ZADD', KEYS[1], score, instance)
      redis.call('ZADD', KEYS[2], show(now), instance)
    end
  end
end
if new > 0 then
  local other
  if plain then
    redis.call('PEXPIRE', KEYS[4], ARGV[2])
    other = redis.call('EXISTS', KEYS[3])
  else
    for k = 1, 3 do redis.call('PEXPIRE', KEYS[k], ARGV[3]) end
    other = redis.call('EXISTS', KEYS[4])
  end
  -- Loads under both kinds of keys must be looked at one by one until they are gone.
  if other > 0 then kind = 'mixed' end
  local expiry = plain and ARGV[2] or ARGV[3]
  redis.call('SET', KEYS[5], ARGV[7] .. ' ' .. kind .. ' ' .. show(latest), 'PX', expiry)
  redis.call('PUBLISH', ARGV[4], 'told ' .. ARGV[5] .. ' ' .. new .. '\n' .. table.concat(told, '\n'))
end
return new
";

/// KEYS board seen report; ARGV ttl. Takes the dead off.
const SWEEP: &str = r"
ours(KEYS[1], 'zset'); ours(KEYS[2], 'zset'); ours(KEYS[3], 'hash')
sweep(KEYS[1], KEYS[2], KEYS[3], now_ms(), tonumber(ARGV[1]))
return 1
";

/// KEYS routes; ARGV channel, message, epoch, generation, then field and value in turn. Answers the
/// version that stands afterwards.
const ROUTES: &str = r"
ours(KEYS[1], 'hash')
local present = redis.call('HGET', KEYS[1], '_gen')
if present then
  local epoch, generation = string.match(present, '^(%d+)%.(%d+)$')
  epoch, generation = digits(epoch), digits(generation)
  local e, g = digits(ARGV[3]), digits(ARGV[4])
  if epoch and (above(epoch, e) or (epoch == e and not above(g, generation))) then
    return present
  end
end
redis.call('DEL', KEYS[1])
local gen = ARGV[3] .. '.' .. ARGV[4]
redis.call('HSET', KEYS[1], '_gen', gen)
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return gen
";

/// KEYS board seen report load routes; ARGV ttl. Answers now, routes, board with scores, report,
/// load; what is of another type reads as empty.
const READ: &str = r"
local now = now_ms()
local function try(...)
  local got = redis.pcall(...)
  if got.err then return {} end
  return got
end
ours(KEYS[1], 'zset'); ours(KEYS[2], 'zset'); ours(KEYS[3], 'hash')
sweep(KEYS[1], KEYS[2], KEYS[3], now, tonumber(ARGV[1]))
return {
  show(now), try('HGETALL', KEYS[5]), try('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'),
  try('HGETALL', KEYS[3]), try('HGETALL', KEYS[4])
}
";

/// KEYS demand; ARGV channel, message, expiry, balancer, JSON.
const DEMAND: &str = r#"
ours(KEYS[1], 'hash')
local value = '{"board_ms":' .. show(now_ms()) .. ',' .. string.sub(ARGV[5], 2)
redis.call('HSET', KEYS[1], ARGV[4], value)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"#;

/// KEYS balancers; ARGV ttl, balancer or nothing. Records a heartbeat; answers now and who is
/// there with the times.
const BEAT: &str = r"
ours(KEYS[1], 'zset')
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', show(now - tonumber(ARGV[1])))
if ARGV[2] then redis.call('ZADD', KEYS[1], show(now), ARGV[2]) end
return {show(now), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
";

/// The scripts, each with its hash; loaded on every new connection.
pub(super) struct Scripts {
    pub(super) record: Script,
    pub(super) sweep: Script,
    pub(super) routes: Script,
    pub(super) read: Script,
    pub(super) demand: Script,
    pub(super) beat: Script,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        let whole = |body: &str| Script::new(&format!("{COMMON}{body}"));
        Scripts {
            record: whole(RECORD),
            sweep: whole(SWEEP),
            routes: whole(ROUTES),
            read: whole(READ),
            demand: whole(DEMAND),
            beat: whole(BEAT),
        }
    }

    /// The commands that load them all.
    pub(super) fn load(&self) -> ::redis::Pipeline {
        let mut pipe = ::redis::pipe();
        for body in [RECORD, SWEEP, ROUTES, READ, DEMAND, BEAT] {
            pipe.cmd("SCRIPT").arg("LOAD").arg(format!("{COMMON}{body}")).ignore();
        }
        pipe
    }
}

/// A call of a script that is loaded.
pub(super) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut cmd = ::redis::cmd("EVALSHA");
    cmd.arg(script.get_hash()).arg(keys.len());
    for key in keys {
        cmd.arg(key);
    }
    cmd
}
