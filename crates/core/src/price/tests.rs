use proptest::prelude::*;
use woodfrog_types::usage::MICROS_PER_DOLLAR;

use super::*;

fn tokens(model: &str, input: u64, output: u64, cache_read: u64, cache_write: u64) -> Quantity {
    Quantity::Tokens {
        model: model.to_owned(),
        tokens: Tokens {
            input,
            output,
            cache_read,
            cache_write,
        },
    }
}

fn compute(rung: Rung, cpu: u64, memory: u64, disk: u64) -> Quantity {
    Quantity::Compute {
        rung,
        cpu_millis_ms: cpu,
        memory_mib_ms: memory,
        disk_mib_ms: disk,
    }
}

/// The contract's numbers: 3.00, 15.00 and 0.30 dollars a million, and so on.
#[test]
fn golden_prices_of_models() {
    const M: u64 = 1_000_000;
    let table = built_in();
    let cases = [
        ("claude-sonnet-4-5-20250929", [300, 1500, 30, 375]),
        ("claude-opus-4-5-20251101", [1500, 7500, 150, 1875]),
        ("claude-haiku-4-0-20250604", [25, 125, 0, 0]),
    ];
    for (model, cents) in cases {
        let kinds = [
            tokens(model, M, 0, 0, 0),
            tokens(model, 0, M, 0, 0),
            tokens(model, 0, 0, M, 0),
            tokens(model, 0, 0, 0, M),
        ];
        for (kind, cents) in kinds.iter().zip(cents) {
            let cost = cost(&table, kind);
            if cents > 0 {
                assert_eq!(cost.total(), cents * MICROS_PER_DOLLAR / 100, "{kind:?}");
                assert!(!cost.unpriced);
            }
        }
    }
    // 0.025 dollars, and a kind whose price is not known.
    let haiku = "claude-haiku-4-0-20250604";
    assert_eq!(cost(&table, &tokens(haiku, 0, 0, M, 0)).model, 25_000);
    let written = cost(&table, &tokens(haiku, 4, 0, 0, 1));
    assert_eq!((written.model, written.unpriced), (1, true));
}

/// Prompt 12,345, completion 6,789, cached 100,000 of the default model.
#[test]
fn golden_mixed_call() {
    let call = tokens("claude-sonnet-4-5-20250929", 12_345, 6_789, 100_000, 0);
    // 0.037035 + 0.101835 + 0.03 dollars.
    assert_eq!(cost(&built_in(), &call).model, 37_035 + 101_835 + 30_000);
}

/// 0.000014 dollars × 2 CPUs × 120 s.
#[test]
fn golden_compute() {
    let used = compute(Rung::Running, 2_000 * 120_000, 4_096 * 120_000, 0);
    assert_eq!(cost(&built_in(), &used).compute, 3_360);
    let month = 30 * 24 * 3_600 * 1_000;
    let asleep = compute(Rung::Hibernated, 0, 0, 1_024 * month);
    assert_eq!(cost(&built_in(), &asleep).compute, 100_000);
    assert_eq!(
        saved(
            &built_in(),
            &used,
            &compute(Rung::Paused, 0, 4_096 * 120_000, 0)
        ),
        3_360
    );
}

#[test]
fn unknown_models_are_flagged_and_not_guessed() {
    let table = built_in();
    let unknown = cost(&table, &tokens("somebody-else", 5, 5, 5, 5));
    assert_eq!((unknown.total(), unknown.unpriced), (0, true));
    let nothing = cost(&table, &tokens("somebody-else", 0, 0, 0, 0));
    assert_eq!(nothing, Cost::default());
}

#[test]
fn a_part_of_a_micro_dollar_is_a_whole_one() {
    let one = cost(
        &built_in(),
        &tokens("claude-haiku-4-0-20250604", 1, 1, 1, 0),
    );
    // A quarter, 1.25 and 0.025 micro-dollars.
    assert_eq!(one.model, 1 + 2 + 1);
}

#[test]
fn tables_have_limits() {
    validate(&built_in()).expect("the built-in table");
    let mut dear = built_in();
    dear.compute[3].disk = PRICE_MAX + 1;
    let fault = validate(&dear).expect_err("too dear");
    assert_eq!(fault.field.as_deref(), Some("compute.archived.disk"));
    let mut named = built_in();
    let price = named.models["claude-opus-4-5-20251101"];
    named.models.insert(String::new(), price);
    assert!(validate(&named).is_err());
}

proptest! {
    /// The exact cost, by fractions: never less, and less than a micro-dollar per kind more.
    #[test]
    fn rounding_is_up_and_by_less_than_one(
        counts in prop::array::uniform4(0_u64..1 << 40),
        prices in prop::array::uniform4(0_u64..=PRICE_MAX),
    ) {
        let mut table = built_in();
        table.models.insert("m".to_owned(), ModelPrice {
            input: prices[0],
            output: prices[1],
            cache_read: prices[2],
            cache_write: Some(prices[3]),
        });
        let got = cost(&table, &tokens("m", counts[0], counts[1], counts[2], counts[3]));
        let pairs = counts.iter().zip(prices);
        let exact: u128 = pairs.map(|(n, price)| u128::from(*n) * u128::from(price)).sum();
        let got = u128::from(got.model) * PER;
        prop_assert!(got >= exact);
        prop_assert!(got < exact + 4 * PER);
    }

    /// Splitting an interval never makes it cheaper, and by less than one per kind dearer.
    #[test]
    fn splitting_costs_at_most_the_rounding(units in 0_u64..1 << 50, at in 0_u64..1 << 50) {
        let at = at.min(units);
        let whole = cost(&built_in(), &compute(Rung::Running, units, 0, 0)).compute;
        let parts = cost(&built_in(), &compute(Rung::Running, at, 0, 0)).compute
            + cost(&built_in(), &compute(Rung::Running, units - at, 0, 0)).compute;
        prop_assert!(parts >= whole && parts <= whole + 1);
    }

    /// Nothing overflows, whatever is asked.
    #[test]
    fn any_number_has_a_cost(a: u64, b: u64, c: u64, d: u64) {
        let model = "claude-opus-4-5-20251101";
        let _ = cost(&built_in(), &tokens(model, a, b, c, d));
        for rung in Rung::ALL {
            let _ = cost(&built_in(), &compute(rung, a, b, c));
        }
    }
}
