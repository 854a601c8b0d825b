//! The board on a real Redis: the promises, the keys as others see them, loss and return.

use super::*;
use crate::MemoryBoard;
use crate::contract::{self, Subject};
use crate::testing::{
    HandClock, PATIENCE, RealClock, TestRedis, front, instance, report, routes, service,
};
use ::redis::aio::MultiplexedConnection;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::time::timeout;

fn board(redis: &TestRedis) -> RedisBoard {
    RedisBoard::connect(redis.url(), Arc::new(RealClock::default())).unwrap()
}

use ::redis::pipe;

async fn raw(redis: &TestRedis) -> MultiplexedConnection {
    let client = ::redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn flush_own(redis: &TestRedis) {
    let mut raw = raw(redis).await;
    let keys: Vec<String> =
        ::redis::cmd("KEYS").arg("tally:*").query_async(&mut raw).await.unwrap();
    if !keys.is_empty() {
        ::redis::cmd("DEL").arg(keys).exec_async(&mut raw).await.unwrap();
    }
}

/// Sets every time on the board back.
const AGE: &str = r#"
local by = tonumber(ARGV[1])
local function older(n) return string.format('%.0f', tonumber(n) - by) end
for _, key in ipairs(redis.call('KEYS', 'tally:*')) do
  if string.match(key, ':writer$') then
    redis.call('DEL', key)
  elseif string.match(key, ':seen$') or key == 'tally:balancers' then
    local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #all, 2 do redis.call('ZADD', key, older(all[i + 1]), all[i]) end
  elseif string.match(key, ':report$') or string.match(key, ':load$') then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      local a, at, b = string.match(all[i + 1], '^(.* )(%d+)( %l+)$')
      redis.call('HSET', key, all[i], a .. older(at) .. b)
    end
  elseif key == 'tally:terms' then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      local a, at = string.match(all[i + 1], '^(.* )(%d+)$')
      redis.call('HSET', key, all[i], a .. older(at))
    end
  elseif string.match(key, ':demand$') then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      local at, rest = string.match(all[i + 1], '^{.board_ms.:(%d+)(.*)$')
      redis.call('HSET', key, all[i], '{"board_ms":' .. older(at) .. rest)
    end
  end
end"#;

mod kinds;

struct OnRedis(RedisBoard, Vec<MultiplexedConnection>);

#[async_trait]
impl Subject for OnRedis {
    fn board(&self) -> &dyn Board {
        &self.0
    }
    async fn pass(&self, span: Duration) {
        for raw in &self.1 {
            let mut cmd = ::redis::cmd("EVAL");
            cmd.arg(AGE).arg(0).arg(millis(span)).exec_async(&mut raw.clone()).await.unwrap();
        }
    }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(got) = check().await {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test]
async fn redis_keeps_the_promises() {
    let Some(redis) = TestRedis::any("redis_keeps_the_promises") else { return };
    flush_own(&redis).await;
    contract::run(&OnRedis(board(&redis), vec![raw(&redis).await])).await;
    flush_own(&redis).await;
}

#[tokio::test]
async fn keys_are_as_the_contract_says() {
    let Some(redis) = TestRedis::own("keys_are_as_the_contract_says") else { return };
    let (board, mut raw) = (board(&redis), raw(&redis).await);
    board.publish_front(&front("shop")).await.unwrap();
    board.publish_routes(&service("shop"), &routes("shop", "7.3", 2)).await.unwrap();
    let loads = [9_000, 4_200, 6_000].into_iter().zip(0..);
    let reports: Vec<_> =
        loads.map(|(load, n)| report(&instance("shop", n), load, Some(17))).collect();
    board.record(&reports).await.unwrap();
    let demand = [(service("shop"), Demand::default())];
    board.write_demand(&"b-1".parse().unwrap(), &demand).await.unwrap();

    let mut cmd = ::redis::cmd("ZRANGE");
    cmd.arg("tally:{shop}:board").arg(0).arg(0).arg("WITHSCORES");
    let least: Vec<(String, f64)> = cmd.query_async(&mut raw).await.unwrap();
    assert_eq!(least, [(instance("shop", 1).to_string(), 0.42)]);
    let kinds = [
        ("tally:{shop}:board", "zset", true),
        ("tally:{shop}:seen", "zset", true),
        ("tally:{shop}:report", "hash", true),
        ("tally:{shop}:routes", "hash", false),
        ("tally:{shop}:demand", "hash", true),
        ("tally:services", "hash", false),
        ("tally:balancers", "zset", false),
    ];
    for (key, kind, expires) in kinds {
        let mut both = pipe();
        both.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
        let (got, ttl): (String, i64) = both.query_async(&mut raw).await.unwrap();
        assert_eq!((got.as_str(), ttl > 0), (kind, expires), "{key}");
    }
    let mut cmd = ::redis::cmd("HGETALL");
    let got: Strings = cmd.arg("tally:{shop}:routes").query_async(&mut raw).await.unwrap();
    assert_eq!(got["_gen"], "7.3");
    assert_eq!(got[instance("shop", 1).as_str()], "127.0.0.1:20000 ready 100 10 1");
}

#[tokio::test]
async fn what_others_wrote_is_read_if_sane_and_ignored_if_not() {
    let Some(redis) = TestRedis::own("what_others_wrote_is_read_if_sane_and_ignored_if_not") else {
        return;
    };
    let (board, mut raw) = (board(&redis), raw(&redis).await);
    board.publish_front(&front("shop")).await.unwrap();
    board.record(&[report(&instance("shop", 1), 100, None)]).await.unwrap();
    let mut junk = pipe();
    junk.cmd("ZADD").arg("tally:{shop}:board").arg("+inf").arg("no instance").ignore();
    junk.cmd("ZADD").arg("tally:{shop}:board").arg(0).arg(instance("shop", 2).as_str()).ignore();
    junk.cmd("HSET").arg("tally:{shop}:report").arg("no instance").arg("?").ignore();
    junk.cmd("HSET").arg("tally:{shop}:routes").arg("_gen").arg("new").ignore();
    junk.cmd("HSET").arg("tally:{shop}:demand").arg("b-9").arg("{}").ignore();
    junk.cmd("SET").arg("tally:{junk}:board").arg("x").ignore();
    junk.cmd("SET").arg("tally:{junk}:routes").arg("x").ignore();
    junk.cmd("HSET").arg("tally:services").arg("junk").arg("{").ignore();
    junk.cmd("HSET").arg("tally:services").arg("not a name").arg("{").ignore();
    junk.cmd("ZADD").arg("tally:balancers").arg("+inf").arg("b 9").ignore();
    junk.exec_async(&mut raw).await.unwrap();

    let view = board.view().await.unwrap();
    assert_eq!(view.services.len(), 2);
    let shop = &view.services[&service("shop")];
    assert_eq!(shop.loads.len(), 1, "only what has a load and a time counts");
    assert_eq!((&shop.routes, shop.front.as_ref()), (&None, Some(&front("shop"))));
    assert_eq!(view.services[&service("junk")], ServiceView::default());
    assert!(view.balancers.is_empty());
    assert!(board.demand().await.unwrap().is_empty());

    assert_eq!(board.record(&[report(&instance("junk", 1), 5, None)]).await.unwrap(), 1);
    board.publish_routes(&service("junk"), &routes("junk", "1.1", 1)).await.unwrap();
    board.publish_routes(&service("shop"), &routes("shop", "1.1", 1)).await.unwrap();
    let junk = board.service(&service("junk")).await.unwrap();
    assert_eq!((junk.loads.len(), junk.routes), (1, Some(routes("junk", "1.1", 1))));
    let shop = board.service(&service("shop")).await.unwrap();
    assert_eq!(shop.routes, Some(routes("shop", "1.1", 1)), "an unreadable version is no version");
}

#[tokio::test]
async fn a_replay_through_another_writer_changes_nothing() {
    let name = "a_replay_through_another_writer_changes_nothing";
    let Some(redis) = TestRedis::own(name) else { return };
    let both = [board(&redis), board(&redis)];
    let who = instance("shop", 1);
    // Writer, number, whether it is new: each writer knows the loads that the other wrote.
    let steps =
        [(0, 5, 1), (0, 6, 1), (1, 6, 0), (1, 7, 1), (0, 7, 0), (0, 6, 0), (0, 8, 1), (1, 8, 0)];
    for (writer, seq, new) in steps {
        let reports = [report(&who, 1, Some(seq))];
        assert_eq!(both[writer].record(&reports).await.unwrap(), new, "{writer} writes {seq}");
    }
}

#[tokio::test]
async fn a_lone_writer_needs_the_script_once() {
    let Some(redis) = TestRedis::own("a_lone_writer_needs_the_script_once") else { return };
    let (board, mut raw) = (board(&redis), raw(&redis).await);
    board.publish_front(&front("shop")).await.unwrap();
    for seq in 1..=20 {
        let reports: Vec<_> = (0..3).map(|n| report(&instance("shop", n), 1, Some(seq))).collect();
        assert_eq!(board.record(&reports).await.unwrap(), 3);
    }
    let stats: String =
        ::redis::cmd("INFO").arg("commandstats").query_async(&mut raw).await.unwrap();
    let calls = |name: &str| {
        let start = format!("cmdstat_{name}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|rest| rest.split(',').next()?.parse::<u32>().ok()).unwrap_or(0)
    };
    assert_eq!(calls("exec"), 19, "{stats}");
    // Once each: whether the service has a balancer, and what the script wrote of the instances.
    assert!(calls("hmget") < 5 && calls("unwatch") < 5, "{stats}");
}

#[tokio::test]
async fn writers_at_once_leave_the_newest() {
    const EACH: u64 = 200;
    let Some(redis) = TestRedis::own("writers_at_once_leave_the_newest") else { return };
    let both = [board(&redis), board(&redis)];
    let write = async |board: &RedisBoard| {
        for seq in 1..=EACH {
            let reports: Vec<_> =
                (0..3).map(|n| report(&instance("shop", n), 1, Some(seq))).collect();
            board.record(&reports).await.unwrap();
        }
    };
    let _both = tokio::join!(write(&both[0]), write(&both[1]));
    let view = both[0].service(&service("shop")).await.unwrap();
    let seqs: Vec<_> = view.loads.iter().map(|l| l.report.seq).collect();
    assert_eq!(seqs, [Some(EACH); 3]);
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let Some(redis) = TestRedis::own("forgotten_scripts_are_loaded_again") else { return };
    let (board, mut raw) = (board(&redis), raw(&redis).await);
    board.record(&[report(&instance("shop", 1), 5, None)]).await.unwrap();
    ::redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.unwrap();
    assert_eq!(board.record(&[report(&instance("shop", 1), 6, None)]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_role_starts_before_redis_does() {
    let mut redis = TestRedis::down();
    let board = board(&redis);
    let mut changes = board.watch();
    assert!(matches!(board.view().await, Err(BoardError::Unreachable { .. })));
    if let Err(why) = redis.start() {
        crate::testing::skipped("a_role_starts_before_redis_does", &why.to_string());
        return;
    }
    until("the board answers", async || board.ping().await.ok()).await;
    let first = timeout(PATIENCE, changes.next()).await.unwrap();
    assert_eq!(first, Some(Change::All), "whoever watches reads everything");
}

#[tokio::test]
async fn a_board_that_does_not_answer_is_an_error_in_time() {
    let name = "a_board_that_does_not_answer_is_an_error_in_time";
    let Some(redis) = TestRedis::own(name) else { return };
    let board = board(&redis);
    board.ping().await.unwrap();
    redis.signal("STOP");
    for _ in 0..3 {
        let outcome = timeout(PATIENCE, board.ping()).await.expect("every call ends");
        assert!(outcome.is_err());
    }
    redis.signal("CONT");
    until("the board answers again", async || board.ping().await.ok()).await;
}

#[tokio::test]
async fn a_lost_board_comes_back_empty_and_unknown() {
    let Some(mut redis) = TestRedis::own("a_lost_board_comes_back_empty_and_unknown") else {
        return;
    };
    let board = board(&redis);
    let mut changes = board.watch();
    board.publish_front(&front("shop")).await.unwrap();
    board.publish_routes(&service("shop"), &routes("shop", "1.1", 1)).await.unwrap();
    // Subscribed and quiet: what comes next comes of the loss.
    until("a change", async || {
        board.record(&[report(&instance("shop", 1), 5, None)]).await.unwrap();
        let change = timeout(Duration::from_millis(50), changes.next()).await.ok();
        change.filter(|c| matches!(c, Some(Change::Told(of, _)) if *of == service("shop")))
    })
    .await;
    redis.kill();
    assert!(board.service(&service("shop")).await.is_err(), "lost is not empty");
    redis.start().unwrap();
    let view = until("the board answers", async || board.service(&service("shop")).await.ok());
    assert_eq!(view.await, ServiceView::default(), "unknown, not zero");
    let told = async { while changes.next().await != Some(Change::All) {} };
    timeout(PATIENCE, told).await.expect("watchers are told to read everything");
    let again = [report(&instance("shop", 1), 5, Some(1))];
    let new = until("the board takes loads", async || board.record(&again).await.ok()).await;
    assert_eq!(new, 1, "nothing is remembered that is not there");
}

#[test]
fn an_address_that_is_none_is_refused_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    for bad in ["", "nonsense", "http://x"] {
        assert!(RedisBoard::connect(bad, Arc::new(RealClock::default())).is_err(), "{bad}");
    }
}

/// One thing done to both boards.
#[derive(Debug, Clone)]
enum Act {
    Front(bool),
    Remove,
    Routes(u64, u64, u32),
    Record(Vec<(u32, u32, Option<u64>)>),
    Forget(u32),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = (0u32..4, 0u32..=40_000, proptest::option::of(0u64..6));
    // Spans whose sums are far from every bound: reports of one millisecond get times after one
    // another, and real time passes in Redis.
    let act = prop_oneof![
        1 => any::<bool>().prop_map(Act::Front),
        1 => Just(Act::Remove),
        1 => (0u64..3, 0u64..12, 0u32..4).prop_map(|(e, g, n)| Act::Routes(e, g, n)),
        4 => proptest::collection::vec(one, 0..4).prop_map(Act::Record),
        1 => (0u32..4).prop_map(Act::Forget),
        2 => (1u64..5).prop_map(|n| Act::Pass(n * 2510)),
    ];
    proptest::collection::vec(act, 1..25)
}

/// Does it; answers what the caller is told.
async fn act(board: &dyn Board, act: &Act) -> String {
    match act {
        Act::Front(balanced) => {
            let mut front = front("twin");
            front.load_balanced = *balanced;
            format!("{:?}", board.publish_front(&front).await)
        }
        Act::Remove => format!("{:?}", board.remove_service(&service("twin")).await),
        Act::Routes(epoch, generation, count) => {
            let table = routes("twin", &format!("{epoch}.{generation}"), *count);
            format!("{:?}", board.publish_routes(&service("twin"), &table).await)
        }
        Act::Record(loads) => {
            let reports =
                loads.iter().map(|(n, load, seq)| report(&instance("twin", *n), *load, *seq));
            format!("{:?}", board.record(&reports.collect::<Vec<_>>()).await)
        }
        Act::Forget(n) => format!("{:?}", board.forget(&[instance("twin", *n)]).await),
        Act::Pass(_) => String::new(),
    }
}

/// What stands there, without times, which are each board's own.
async fn stands(board: &dyn Board) -> (ServiceView, BTreeSet<ServiceName>) {
    let mut view = board.service(&service("twin")).await.unwrap();
    for reading in &mut view.loads {
        (reading.at, reading.age) = (Timestamp(0), Duration::ZERO);
    }
    (view, board.view().await.unwrap().services.into_keys().collect())
}

#[test]
fn both_boards_are_one_board() {
    let Some(redis) = TestRedis::own("both_boards_are_one_board") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&acts(), |acts| {
        runtime.block_on(async {
            flush_own(&redis).await;
            let there = OnRedis(board(&redis), vec![raw(&redis).await]);
            let clock = Arc::new(HandClock::default());
            let here = MemoryBoard::new(Arc::clone(&clock) as Arc<dyn Clock>);
            for step in &acts {
                if let Act::Pass(ms) = step {
                    clock.pass(Duration::from_millis(*ms));
                    there.pass(Duration::from_millis(*ms)).await;
                }
                let (a, b) = (act(&here, step).await, act(&there.0, step).await);
                prop_assert_eq!(a, b, "{:?}", step);
                prop_assert_eq!(stands(&here).await, stands(&there.0).await, "{:?}", step);
            }
            Ok(())
        })
    });
    outcome.unwrap();
}
