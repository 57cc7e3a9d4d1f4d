use proptest::prelude::*;

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

#[test]
fn ten_in_a_minute_and_then_none() {
    let rate = Rate::per_minute(10, 0);
    let mut window = Window::new();
    for left in (0..10).rev() {
        let verdict = window.take(rate, at(0));
        assert!(verdict.admitted);
        assert_eq!(verdict.remaining, left);
    }
    let refused = window.take(rate, at(100));
    assert!(!refused.admitted);
    assert!(refused.reset > Duration::from_secs(58), "{refused:?}");
    assert!(!window.take(rate, at(59_000)).admitted);
    assert!(window.take(rate, at(61_000)).admitted);
}

#[test]
fn a_burst_is_lent_and_comes_back() {
    let rate = Rate::per_minute(10, 10);
    let mut window = Window::new();
    let admitted = |window: &mut Window, now: i64| {
        (0..100)
            .filter(|_| window.take(rate, at(now)).admitted)
            .count()
    };
    assert_eq!(admitted(&mut window, 0), 20);
    // A minute later a tenth of the burst is back.
    assert_eq!(admitted(&mut window, 61_000), 11);
    // Ten minutes of rest, and all of it is.
    assert_eq!(admitted(&mut window, 700_000), 20);
}

#[test]
fn a_window_that_rested_is_idle() {
    let rate = Rate::per_minute(2, 2);
    let mut window = Window::new();
    assert!(window.is_idle(rate, at(0)));
    for _ in 0..4 {
        window.take(rate, at(0));
    }
    assert!(!window.is_idle(rate, at(61_000)));
    assert!(window.is_idle(rate, at(700_000)));
}

#[test]
fn a_count_of_a_store_is_judged_alike() {
    let rate = Rate::per_minute(10, 2);
    let oldest = Some(at(0));
    assert!(counted(rate, 11, oldest, at(1_000)).admitted);
    let refused = counted(rate, 12, oldest, at(1_000));
    assert!(!refused.admitted);
    assert_eq!(refused.reset, Duration::from_secs(59));
    assert_eq!(
        too_many_runs(10),
        "Rate limit exceeded: maximum 10 sandbox runs per minute"
    );
}

proptest! {
    /// However calls fall, clocks that step back included: no window has more than the limit and
    /// the burst, and whoever waits as long as the answer says gets through.
    #[test]
    fn no_window_has_more_than_the_limit_and_the_burst(
        limit in 1_u32..20,
        burst in 0_u32..10,
        steps in prop::collection::vec((-5_000_i64..30_000, 1_usize..20), 1..60),
    ) {
        let rate = Rate::per_minute(limit, burst);
        let mut window = Window::new();
        let (mut clock, mut latest) = (0, i64::MIN);
        let mut admitted: Vec<i64> = Vec::new();
        for (step, calls) in steps {
            clock += step;
            latest = latest.max(clock);
            for _ in 0..calls {
                let verdict = window.take(rate, at(clock));
                prop_assert!(verdict.remaining <= limit + burst);
                if verdict.admitted {
                    admitted.push(latest);
                } else {
                    let wait = i64::try_from(verdict.reset.as_millis()).unwrap();
                    prop_assert!(wait <= 62_000, "{verdict:?}");
                    prop_assert!(window.clone().take(rate, at(latest + wait)).admitted);
                }
            }
        }
        for (index, first) in admitted.iter().enumerate() {
            let within = admitted[index..].iter().filter(|time| **time < first + 60_000);
            prop_assert!(within.count() <= (limit + burst) as usize);
        }
    }

    /// Who stays under the limit is never refused.
    #[test]
    fn who_is_slow_enough_is_admitted(limit in 1_u32..30, calls in 1_u32..100) {
        let rate = Rate::per_minute(limit, 0);
        let mut window = Window::new();
        // One slot more than the window, since a slot counts until all of it is outside.
        let pause = i64::from(61_000 / limit + 1);
        for call in 0..calls {
            prop_assert!(window.take(rate, at(i64::from(call) * pause)).admitted);
        }
    }
}
