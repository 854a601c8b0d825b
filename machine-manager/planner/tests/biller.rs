//! The promise about money: an independent biller never finds a month above the cap by anything the
//! planner did, over random orders, caps, month turns, late and refused stops.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod world;

use domain::Timestamp;
use machine_planner::Month;
use proptest::prelude::*;
use world::World;

const STEPS: usize = 90;

/// Lives through one story; the bill is read after every step.
fn live(seed: u64, may_lower: bool) -> Result<World, TestCaseError> {
    let mut world = World::new(seed, may_lower);
    let first = Month::of(Timestamp(world.now));
    for step in 0..STEPS {
        world.step();
        for month in [first, first.next()] {
            let bill = world.honest_bill(month);
            // A unit may begin long after it was admitted (minimum, lead, flight): under a cap that
            // was lowered since, the cap of that moment counts.
            let window = 80 * world.tick;
            let since = if may_lower { month.start().0.min(world.now) - window } else { world.now };
            let cap = world.cap_since(since);
            prop_assert!(
                bill <= cap,
                "seed {seed}, step {step}, month {month}: billed {bill}, cap {cap}"
            );
            world.fullest = world.fullest.max(bill.saturating_mul(100) / cap.max(1));
        }
    }
    Ok(world)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Caps that stay or rise: the bill is at or under the cap of this very moment, always.
    #[test]
    fn the_bill_never_exceeds_the_cap(seed: u64) {
        live(seed, false)?;
    }

    /// Caps that fall as well: never above the greatest cap of the month.
    #[test]
    fn the_bill_never_exceeds_the_caps_of_its_month(seed: u64) {
        live(seed, true)?;
    }
}

/// The stories above are no idle ones: nodes are ordered, the cap holds some back, months turn with
/// nodes running, and the cap is nearly reached in many of them.
#[test]
fn the_stories_are_full_of_life() {
    let (mut orders, mut held, mut stops, mut full, mut turned) = (0, 0, 0, 0, 0);
    for seed in 0..150 {
        let world = live(seed, false).unwrap();
        orders += world.orders;
        held += usize::from(world.held > 0);
        stops += world.stops;
        full += usize::from(world.fullest >= 80);
        let month = Month::of(Timestamp(world.now));
        turned += usize::from(
            world
                .machines
                .values()
                .any(|m| m.start < month.start().0 && m.stop.is_none_or(|s| s > month.start().0)),
        );
    }
    assert!(orders > 300 && stops > 150, "{orders} orders, {stops} stops");
    assert!(held > 40, "the cap held something back in {held} stories");
    assert!(full > 30, "the cap was nearly reached in {full} stories");
    assert!(turned > 30, "a node ran through the turn of a month in {turned} stories");
}
