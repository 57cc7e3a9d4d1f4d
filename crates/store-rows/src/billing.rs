//! Prices, budgets and webhooks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::secret::Sealed;
use woodfrog_types::usage::{
    Budget, BudgetAlert, ComputePrice, Meter, ModelPrice, Month, OverBudget, PriceTable, Rung,
    Spending,
};
use woodfrog_types::webhook::{
    Attempt, Delivery, DeliveryState, Happening, Webhook, WebhookEvent, WebhookState,
};
use woodfrog_types::workspace::UserId;

use crate::{
    Columns, corrupt, count_column, get, id_column, json_column, time_column, time_column_opt,
    to_json,
};

const PRICES: &str = "price table";
const BUDGET: &str = "budget";
const ALERT: &str = "budget alert";
const WEBHOOK: &str = "webhook";
const DELIVERY: &str = "delivery";
const HAPPENING: &str = "happening";
const METER: &str = "meter";

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum StoredPrices {
    #[serde(rename = "1")]
    V1 {
        created_by: Option<String>,
        models: BTreeMap<String, StoredModel>,
        compute: [StoredCompute; 4],
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredModel {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredCompute {
    cpu: u64,
    memory: u64,
    disk: u64,
}

pub fn prices_to_json(table: &PriceTable) -> Result<String> {
    let model = |price: &ModelPrice| StoredModel {
        input: price.input,
        output: price.output,
        cache_read: price.cache_read,
        cache_write: price.cache_write,
    };
    let stored = StoredPrices::V1 {
        created_by: table.created_by.as_ref().map(ToString::to_string),
        models: table
            .models
            .iter()
            .map(|(name, price)| (name.clone(), model(price)))
            .collect(),
        compute: table
            .compute
            .map(|ComputePrice { cpu, memory, disk }| StoredCompute { cpu, memory, disk }),
    };
    to_json(PRICES, &stored)
}

pub fn prices_from_row(row: &dyn Columns) -> Result<PriceTable> {
    let StoredPrices::V1 {
        created_by,
        models,
        compute,
    } = json_column(row, PRICES, "body")?;
    let model = |price: StoredModel| ModelPrice {
        input: price.input,
        output: price.output,
        cache_read: price.cache_read,
        cache_write: price.cache_write,
    };
    let user = |name: String| UserId::parse(&name).ok_or_else(|| corrupt(PRICES, "created_by"));
    Ok(PriceTable {
        version: count_column(row, PRICES, "version")?,
        created_at: time_column(row, PRICES, "created_at")?,
        created_by: created_by.map(user).transpose()?,
        models: models
            .into_iter()
            .map(|(name, price)| (name, model(price)))
            .collect(),
        compute: compute.map(|StoredCompute { cpu, memory, disk }| ComputePrice {
            cpu,
            memory,
            disk,
        }),
    })
}

pub fn budget_from_row(row: &dyn Columns) -> Result<Budget> {
    let policy: String = get(row, BUDGET, "policy")?;
    Ok(Budget {
        workspace: id_column(row, BUDGET, "workspace")?,
        amount: count_column(row, BUDGET, "amount")?,
        thresholds: json_column(row, BUDGET, "thresholds")?,
        hard: get(row, BUDGET, "hard")?,
        policy: [OverBudget::Freeze, OverBudget::End]
            .into_iter()
            .find(|known| known.as_str() == policy)
            .ok_or_else(|| corrupt(BUDGET, format!("unknown policy `{policy}`")))?,
        reserve: count_column(row, BUDGET, "reserve")?,
        generation: count_column(row, BUDGET, "generation")?,
        updated_at: time_column(row, BUDGET, "updated_at")?,
    })
}

/// Columns `spent` and `reserved`.
pub fn spending_from_row(row: &dyn Columns) -> Result<Spending> {
    Ok(Spending {
        spent: count_column(row, BUDGET, "spent")?,
        reserved: count_column(row, BUDGET, "reserved")?,
    })
}

pub fn alert_from_row(row: &dyn Columns) -> Result<BudgetAlert> {
    let month: i64 = get(row, ALERT, "month")?;
    let threshold = count_column(row, ALERT, "threshold")?;
    Ok(BudgetAlert {
        workspace: id_column(row, ALERT, "workspace")?,
        month: i32::try_from(month)
            .map(Month::from_index)
            .map_err(|error| corrupt(ALERT, error))?,
        threshold: u16::try_from(threshold).map_err(|error| corrupt(ALERT, error))?,
        amount: count_column(row, ALERT, "amount")?,
        spent: count_column(row, ALERT, "spent")?,
        at: time_column(row, ALERT, "at")?,
    })
}

pub fn webhook_from_row(row: &dyn Columns) -> Result<Webhook> {
    let state = match time_column_opt(row, WEBHOOK, "disabled_since")? {
        Some(since) => WebhookState::Disabled { since },
        None => WebhookState::Enabled {
            failing_since: time_column_opt(row, WEBHOOK, "failing_since")?,
        },
    };
    Ok(Webhook {
        id: id_column(row, WEBHOOK, "id")?,
        workspace: id_column(row, WEBHOOK, "workspace")?,
        url: get(row, WEBHOOK, "url")?,
        description: get(row, WEBHOOK, "description")?,
        events: json_column(row, WEBHOOK, "events")?,
        secret: Sealed(get(row, WEBHOOK, "secret")?),
        state,
        generation: count_column(row, WEBHOOK, "generation")?,
        created_at: time_column(row, WEBHOOK, "created_at")?,
    })
}

/// Columns `failing_since` and `disabled_since`.
pub fn webhook_state_columns(state: WebhookState) -> (Option<i64>, Option<i64>) {
    match state {
        WebhookState::Enabled { failing_since } => (failing_since.map(|at| at.as_millis()), None),
        WebhookState::Disabled { since } => (None, Some(since.as_millis())),
    }
}

pub fn delivery_from_row(row: &dyn Columns) -> Result<Delivery> {
    let moment = time_column(row, DELIVERY, "moment")?;
    let state: String = get(row, DELIVERY, "state")?;
    let state = match state.as_str() {
        "pending" => DeliveryState::Pending { due: moment },
        "delivered" => DeliveryState::Delivered { at: moment },
        "failed" => DeliveryState::Failed { at: moment },
        _ => return Err(corrupt(DELIVERY, format!("unknown state `{state}`"))),
    };
    let status: Option<i64> = get(row, DELIVERY, "last_status")?;
    let status = status.map(u16::try_from).transpose();
    let status = status.map_err(|error| corrupt(DELIVERY, error))?;
    let error: Option<String> = get(row, DELIVERY, "last_error")?;
    let attempts = count_column(row, DELIVERY, "attempts")?;
    Ok(Delivery {
        number: count_column(row, DELIVERY, "number")?,
        webhook: id_column(row, DELIVERY, "webhook")?,
        event: WebhookEvent {
            id: get(row, DELIVERY, "event")?,
            workspace: id_column(row, DELIVERY, "workspace")?,
            kind: get(row, DELIVERY, "kind")?,
            at: time_column(row, DELIVERY, "at")?,
            data: get(row, DELIVERY, "data")?,
        },
        state,
        attempts: u32::try_from(attempts).map_err(|error| corrupt(DELIVERY, error))?,
        last: time_column_opt(row, DELIVERY, "last_at")?.map(|at| Attempt { at, status, error }),
    })
}

pub fn happening_from_row(row: &dyn Columns) -> Result<Happening> {
    Ok(Happening {
        number: count_column(row, HAPPENING, "number")?,
        workspace: id_column(row, HAPPENING, "workspace")?,
        kind: get(row, HAPPENING, "kind")?,
        subject: get(row, HAPPENING, "subject")?,
        place: count_column(row, HAPPENING, "place")?,
        at: time_column(row, HAPPENING, "at")?,
    })
}

pub fn meter_from_row(row: &dyn Columns) -> Result<Meter> {
    let rung: Option<String> = get(row, METER, "rung")?;
    let known = |name: String| {
        let rung = Rung::ALL.into_iter().find(|known| known.as_str() == name);
        rung.ok_or_else(|| corrupt(METER, format!("unknown rung `{name}`")))
    };
    let on = match rung.map(known).transpose()? {
        Some(rung) => Some((rung, time_column(row, METER, "since")?)),
        None => None,
    };
    Ok(Meter {
        sandbox: id_column(row, METER, "sandbox")?,
        workspace: id_column(row, METER, "workspace")?,
        seq: count_column(row, METER, "seq")?,
        on,
        cpu_millis: count_column(row, METER, "cpu_millis")?,
        memory_mib: count_column(row, METER, "memory_mib")?,
        disk_mib: count_column(row, METER, "disk_mib")?,
        saved: count_column(row, METER, "saved")?,
    })
}
