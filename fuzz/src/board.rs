//! What Redis holds and says: routes, fronts, demand, reports, changes.

use domain::{RouteTable, ServiceName, Timestamp};
use scoreboard::testing::text as codec;

/// A moment of the board's clock.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn service() -> ServiceName {
    "shop".parse().expect("a name")
}

/// A message of the change channel.
pub fn changes(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for change in codec::read_changes(text) {
        if let Some(line) = codec::change(&change) {
            assert_eq!(codec::read_changes(&line), [change]);
        }
    }
}

/// A balancer's demand.
pub fn demand(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok((balancer, demand, _age)) = codec::read_demand("b1", text, NOW) else { return };
    let written = codec::demand(&demand).expect("demand has a text");
    let again = codec::read_demand(balancer.as_str(), &written, NOW).expect("our own text");
    assert_eq!(again.1.in_flight, demand.in_flight);
    assert_eq!(again.1.routes_gen, demand.routes_gen);
}

/// A service's front.
pub fn front(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(front) = codec::read_front(&service(), text) else { return };
    let written = codec::front(&front).expect("a front has a text");
    let again = codec::read_front(&service(), &written).expect("our own text");
    assert_eq!((again.hosts, again.paths), (front.hosts, front.paths));
}

/// Reports: a line each, of either form.
pub fn reports(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for line in text.lines() {
        let Ok(reading) = codec::read_plain_report("shop-0123456789", line, NOW) else { continue };
        let (load, counts) = (codec::score(reading.report.load), codec::counts(&reading.report));
        let seq = reading.report.seq.map_or("-".to_owned(), |seq| seq.to_string());
        let written = format!("{load} {counts} {seq} {} {}", reading.at.0, reading.report.source);
        let again = codec::read_plain_report("shop-0123456789", &written, NOW);
        assert_eq!(again.expect("our own line").report, reading.report);
    }
}

/// A route hash: field and value on a line each.
pub fn routes(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let fields = text.lines().filter_map(|line| line.split_once(' '));
    let fields: Vec<(String, String)> =
        fields.map(|(field, value)| (field.to_owned(), value.to_owned())).collect();
    let Ok(Some(RouteTable { generation, entries })) = codec::read_routes(&fields) else { return };
    let mut written: Vec<(String, String)> =
        entries.iter().map(|e| (e.instance.to_string(), codec::route(e))).collect();
    written.push(("_gen".to_owned(), generation.to_string()));
    let again = codec::read_routes(&written).expect("our own text").expect("a table");
    assert_eq!((again.generation, again.entries), (generation, entries));
}

/// What a balancer says it can do.
pub fn ability(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(ability) = codec::read_ability(text) else { return };
    let written = codec::ability(&ability).expect("an ability has a text");
    let again = codec::read_ability(&written).expect("our own text");
    assert_eq!(again.nat_lacks, ability.nat_lacks);
}

/// The terms an agent set.
pub fn terms(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok((terms, at)) = codec::read_terms(text) else { return };
    let again = codec::read_terms(&codec::terms(terms, at)).expect("our own text");
    assert_eq!(again, (terms, at));
}
