use proptest::prelude::*;

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn length(spans: &[Span]) -> i64 {
    let of = |span: &Span| span.to.as_millis() - span.from.as_millis();
    spans.iter().map(of).sum()
}

#[test]
fn a_life_is_metered_by_rung() {
    let log = [
        (1_000, "sandbox.created"),
        (2_000, "sandbox.network_updated"),
        (11_000, "sandbox.paused"),
        (31_000, "sandbox.woken"),
        (32_000, "sandbox.hibernated"),
        (40_000, "sandbox.archived"),
        (50_000, "sandbox.deleted"),
        (60_000, "sandbox.lost"),
    ];
    let mut phase = Phase::Before;
    let mut spans = Vec::new();
    for (time, kind) in log {
        let (next, ended) = follow(phase, kind, at(time));
        phase = next;
        spans.extend(ended);
    }
    assert_eq!(phase, Phase::Gone);
    let lengths: Vec<_> = spans
        .iter()
        .map(|span| (span.rung, length(&[*span])))
        .collect();
    let wanted = [
        (Rung::Running, 10_000),
        (Rung::Paused, 20_000),
        (Rung::Running, 1_000),
        (Rung::Hibernated, 8_000),
        (Rung::Archived, 10_000),
    ];
    assert_eq!(lengths, wanted);
}

#[test]
fn a_clock_that_steps_back_ends_nothing_early() {
    let on = Phase::On {
        rung: Rung::Running,
        since: at(5_000),
    };
    let (phase, spans) = follow(on, "sandbox.paused", at(1_000));
    assert!(spans.is_empty());
    let (rung, since) = (Rung::Paused, at(5_000));
    assert_eq!(phase, Phase::On { rung, since });
    assert_eq!(tick(on, at(0)), (on, Vec::new()));
}

#[test]
fn sleep_uses_no_cpu() {
    let size = Size {
        cpu_millis: 2_000,
        memory_mib: 512,
        disk_mib: 10,
    };
    let used = |rung| {
        let span = Span {
            rung,
            from: at(0),
            to: at(10),
        };
        match quantity(span, size) {
            Quantity::Compute {
                cpu_millis_ms,
                memory_mib_ms,
                disk_mib_ms,
                ..
            } => (cpu_millis_ms, memory_mib_ms, disk_mib_ms),
            Quantity::Tokens { .. } => panic!("no tokens"),
        }
    };
    assert_eq!(used(Rung::Running), (20_000, 5_120, 100));
    assert_eq!(used(Rung::Paused), (0, 5_120, 100));
    assert_eq!(used(Rung::Hibernated), (0, 0, 100));
    assert_eq!(used(Rung::Archived), (0, 0, 100));
}

#[test]
fn a_span_goes_to_the_run_that_began_first() {
    let run = |from, to: Option<i64>| Use {
        run: RunId::generate(),
        from: at(from),
        to: to.map(at),
    };
    let uses = [run(10, Some(30)), run(20, Some(40)), run(60, None)];
    let span = Span {
        rung: Rung::Running,
        from: at(0),
        to: at(70),
    };
    let parts = attribute(span, &uses);
    let got: Vec<_> = parts
        .iter()
        .map(|(part, run)| (part.from.as_millis(), part.to.as_millis(), run.clone()))
        .collect();
    let id = |index: usize| Some(uses[index].run.clone());
    let wanted = [
        (0, 10, None),
        (10, 30, id(0)),
        (30, 40, id(1)),
        (40, 60, None),
        (60, 70, id(2)),
    ];
    assert_eq!(got, wanted);
}

proptest! {
    /// However often the meter looks, the spans are the same.
    #[test]
    fn looking_often_cuts_alike(
        from in 0_i64..10_000_000,
        length in 0_i64..10_000_000,
        looks in prop::collection::vec(0_i64..30_000_000, 0..20),
    ) {
        let on = Phase::On { rung: Rung::Running, since: at(from) };
        let end = at(from + length);
        let (_, at_once) = follow(on, "sandbox.deleted", end);
        let mut looks = looks;
        looks.sort_unstable();
        let mut phase = on;
        let mut spans = Vec::new();
        for look in looks.into_iter().filter(|look| *look <= end.as_millis()) {
            let (next, more) = tick(phase, at(look));
            phase = next;
            spans.extend(more);
        }
        let (_, rest) = follow(phase, "sandbox.deleted", end);
        spans.extend(rest);
        prop_assert_eq!(&spans, &at_once);
        prop_assert_eq!(self::length(&spans), length);
    }

    /// Nothing is lost or booked twice, whatever the runs, and nothing is negative.
    #[test]
    fn parts_are_the_whole(
        to in 1_i64..1_000,
        uses in prop::collection::vec((0_i64..1_000, prop::option::of(0_i64..1_000)), 0..8),
    ) {
        let uses: Vec<Use> = uses.into_iter().map(|(from, length)| Use {
            run: RunId::generate(),
            from: at(from),
            to: length.map(|length| at(from + length)),
        }).collect();
        let span = Span { rung: Rung::Running, from: at(0), to: at(to) };
        let parts = attribute(span, &uses);
        prop_assert_eq!(parts[0].0.from, span.from);
        prop_assert_eq!(parts[parts.len() - 1].0.to, span.to);
        for pair in parts.windows(2) {
            prop_assert_eq!(pair[0].0.to, pair[1].0.from);
        }
        for (part, run) in &parts {
            prop_assert!(part.from < part.to);
            if let Some(run) = run {
                let of = uses.iter().find(|one| one.run == *run).expect("it is one of them");
                prop_assert!(of.from <= part.from && of.to.is_none_or(|to| part.to <= to));
            }
        }
    }

    /// Times of any order give spans that never go back.
    #[test]
    fn any_times_will_do(times in prop::collection::vec((0_i64..1_000_000, 0_usize..5), 0..30)) {
        let kinds = ["sandbox.created", "sandbox.paused", "sandbox.woken", "sandbox.hibernated",
            "sandbox.archived"];
        let mut phase = Phase::Before;
        let mut end = i64::MIN;
        for (time, kind) in times {
            let (next, spans) = follow(phase, kinds[kind], at(time));
            for span in spans {
                prop_assert!(span.from < span.to && span.from.as_millis() >= end);
                end = span.to.as_millis();
            }
            phase = next;
        }
    }
}
