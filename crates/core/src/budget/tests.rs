use proptest::prelude::*;
use woodfrog_types::WorkspaceId;

use super::*;

fn budget(amount: u64, policy: OverBudget) -> Budget {
    Budget {
        workspace: WorkspaceId::default_workspace(),
        amount,
        thresholds: vec![50, 80, 100],
        hard: true,
        policy,
        reserve: 0,
        generation: 1,
        updated_at: Timestamp::from_millis(0),
    }
}

fn spending(spent: u64, reserved: u64) -> Spending {
    Spending { spent, reserved }
}

#[test]
fn months_have_names() {
    let month = parse_month("2026-11").expect("a month");
    assert_eq!(month.to_string(), "2026-11");
    assert_eq!(starts(month).to_rfc3339(), "2026-11-01T00:00:00.000Z");
    for bad in ["2026-13", "26-1", "2026-00", "2026-1", "+026-01", ""] {
        assert_eq!(parse_month(bad), None, "{bad}");
    }
}

#[test]
fn a_soft_limit_never_refuses_and_never_holds() {
    let soft = Budget {
        hard: false,
        ..budget(10, OverBudget::End)
    };
    assert_eq!(admit(&soft, spending(100, 0), 5), Ok(()));
    assert_eq!(judge(Some(&soft), 100), Verdict::Go);
    assert_eq!(judge(None, u64::MAX), Verdict::Go);
}

#[test]
fn a_hard_limit_refuses_with_numbers_and_a_date() {
    let hard = budget(1_500_000, OverBudget::Freeze);
    let refusal = admit(&hard, spending(1_000_000, 400_000), 200_000).expect_err("no room");
    let fault = refusal.fault(parse_month("2026-12").expect("a month"));
    assert_eq!(fault.code, Code::BudgetExceeded);
    for part in [
        "$1.500000",
        "2026-12",
        "$0.400000",
        "2027-01-01T00:00:00.000Z",
    ] {
        assert!(fault.message.contains(part), "{}", fault.message);
    }
    assert_eq!(admit(&hard, spending(1_000_000, 300_000), 200_000), Ok(()));
    assert!(admit(&hard, spending(1_500_000, 0), 0).is_err());
}

#[test]
fn policies_decide_about_what_runs() {
    assert_eq!(judge(Some(&budget(5, OverBudget::Freeze)), 4), Verdict::Go);
    assert_eq!(
        judge(Some(&budget(5, OverBudget::Freeze)), 5),
        Verdict::Hold
    );
    assert_eq!(judge(Some(&budget(5, OverBudget::End)), 6), Verdict::End);
}

#[test]
fn budgets_have_limits() {
    validate(&budget(5, OverBudget::End)).expect("valid");
    for thresholds in [
        vec![80, 50],
        vec![50, 50],
        vec![0],
        vec![1_001],
        vec![1; 11],
    ] {
        let bad = Budget {
            thresholds,
            ..budget(5, OverBudget::End)
        };
        assert!(validate(&bad).is_err());
    }
    let never = Budget {
        reserve: 6,
        ..budget(5, OverBudget::End)
    };
    assert_eq!(
        validate(&never).expect_err("never").field.as_deref(),
        Some("reserve")
    );
}

proptest! {
    #[test]
    fn a_month_holds_its_times(millis in -62_135_596_800_000_i64..253_402_300_800_000) {
        let at = Timestamp::from_millis(millis);
        let month = Month::of(at);
        prop_assert!(starts(month) <= at && at < starts(next(month)));
        if month.index() >= 0 {
            prop_assert_eq!(parse_month(&month.to_string()), Some(month));
        }
    }

    /// However many are let in, what they may use stays within the amount.
    #[test]
    fn what_is_let_in_fits(amount in 1_u64..10_000, wants in prop::collection::vec(0_u64..3_000, 0..40)) {
        let budget = budget(amount, OverBudget::Freeze);
        let mut reserved = 0;
        for wanted in wants {
            if admit(&budget, spending(0, reserved), wanted).is_ok() {
                reserved += wanted;
            }
        }
        prop_assert!(reserved <= amount);
    }

    /// Thresholds are reached in order, by whole numbers, and stay reached.
    #[test]
    fn thresholds_stay_reached(amount in 0_u64..=AMOUNT_MAX, one: u64, more in 0_u64..1 << 40) {
        let budget = budget(amount, OverBudget::Freeze);
        let before: Vec<_> = reached(&budget, one).collect();
        let after: Vec<_> = reached(&budget, one.saturating_add(more)).collect();
        prop_assert!(after.starts_with(&before));
        prop_assert_eq!(before.contains(&100), one >= amount);
    }
}
