//! `woodfrog price`, `budget`, `usage` and `webhook`.

use std::io::Write;

use anyhow::Context;
use reqwest::{Method, RequestBuilder};
use woodfrog_types::Timestamp;
use woodfrog_wire::native::billing::{
    Budget, BudgetPatch, BudgetPolicy, Budgets, CreatedWebhook, Deliveries, Delivery, ModelPrice,
    NewPrices, NewWebhook, Prices, PricesPatch, Replay, Replayed, RunAnalytics, Tools, UsageRow,
    UsageShow, Webhook, WebhookPatch, Webhooks,
};

use super::Outcome;
use crate::args::{
    BudgetCommand, Format, Policy, PriceCommand, Span, UsageCommand, WebhookCommand, WhichRuns,
};
use crate::client::Client;
use crate::output;

/// `$1.500000`: all digits that count.
fn dollars(micros: u64) -> String {
    format!("${}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn at(millis: Option<i64>) -> String {
    millis.map_or_else(
        || "-".to_owned(),
        |millis| Timestamp::from_millis(millis).to_rfc3339(),
    )
}

pub(super) async fn price(command: PriceCommand) -> Outcome {
    let (prices, target): (Prices, _) = match command {
        PriceCommand::List { table, target } => {
            let client = Client::new(&target)?;
            let mut request = client.get(&["prices"]);
            if let Some(version) = table {
                request = request.query(&[("version", version)]);
            }
            (client.json(request).await?, target)
        }
        PriceCommand::Set {
            model,
            input,
            output,
            cache_read,
            cache_write,
            target,
        } => {
            let client = Client::new(&target)?;
            let price = ModelPrice {
                input,
                output,
                cache_read,
                cache_write,
            };
            let mut patch = PricesPatch::default();
            patch.models.insert(model, price);
            let request = client.request(Method::PATCH, client.route(&["prices"]));
            (client.json(request.json(&patch)).await?, target)
        }
        PriceCommand::Import { file, target } => {
            let client = Client::new(&target)?;
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("read {}", file.display()))?;
            let read: Prices = serde_json::from_str(&text)
                .with_context(|| format!("{} holds no prices", file.display()))?;
            let wanted = NewPrices {
                models: read.models,
                compute: read.compute,
            };
            let request = client.request(Method::PUT, client.route(&["prices"]));
            (client.json(request.json(&wanted)).await?, target)
        }
    };
    if target.json {
        output::json(&prices)?;
        return Ok(0);
    }
    output::note(&format!(
        "version {}; dollars for a million",
        prices.version
    ));
    let cell = |price: Option<u64>| price.map_or_else(|| "unknown".to_owned(), dollars);
    let rows: Vec<Vec<String>> = prices
        .models
        .iter()
        .map(|(name, price)| {
            let prices =
                [price.input, price.output, price.cache_read].map(|price| cell(Some(price)));
            let mut row = vec![name.clone()];
            row.extend(prices);
            row.push(cell(price.cache_write));
            row
        })
        .collect();
    output::table(
        &["MODEL", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE"],
        &rows,
    )?;
    let compute = prices.compute;
    let rungs = [
        ("running", compute.running),
        ("paused", compute.paused),
        ("hibernated", compute.hibernated),
        ("archived", compute.archived),
    ];
    let rows: Vec<Vec<String>> = rungs
        .into_iter()
        .map(|(name, price)| {
            let mut row = vec![name.to_owned()];
            row.extend([price.cpu, price.memory, price.disk].map(dollars));
            row
        })
        .collect();
    output::table(
        &["RUNG", "CPU SECONDS", "GIB SECONDS", "DISK GIB SECONDS"],
        &rows,
    )?;
    Ok(0)
}

pub(super) async fn budget(command: BudgetCommand) -> Outcome {
    let (budgets, one, target) = match command {
        BudgetCommand::Set {
            amount,
            thresholds,
            soft,
            hard,
            policy,
            reserve,
            target,
        } => {
            let client = Client::new(&target)?;
            let patch = BudgetPatch {
                amount_micros: amount,
                thresholds,
                hard: (soft || hard).then_some(hard),
                policy: policy.map(|policy| match policy {
                    Policy::Freeze => BudgetPolicy::Freeze,
                    Policy::End => BudgetPolicy::End,
                }),
                reserve_micros: reserve,
            };
            let request = client.request(Method::PATCH, client.route(&["budget"]));
            let set: Budget = client.json(request.json(&patch)).await?;
            (vec![set], true, target)
        }
        BudgetCommand::Show { target } => {
            let client = Client::new(&target)?;
            let shown: Budget = client.json(client.get(&["budget"])).await?;
            (vec![shown], true, target)
        }
        BudgetCommand::List { target } => {
            let client = Client::new(&target)?;
            let listed: Budgets = client.json(client.get(&["budgets"])).await?;
            (listed.items, false, target)
        }
        BudgetCommand::Clear { target } => {
            let client = Client::new(&target)?;
            client.send(client.delete(&["budget"])).await?;
            return Ok(0);
        }
    };
    match (target.json, budgets.as_slice()) {
        (true, [budget]) if one => output::json(budget)?,
        (true, _) => output::json(&budgets)?,
        (false, _) => {
            let rows: Vec<Vec<String>> = budgets.iter().map(budget_row).collect();
            let headings = [
                "WORKSPACE",
                "MONTH",
                "AMOUNT",
                "SPENT",
                "RESERVED",
                "LIMIT",
                "POLICY",
                "REACHED",
            ];
            output::table(&headings, &rows)?;
        }
    }
    Ok(0)
}

fn budget_row(budget: &Budget) -> Vec<String> {
    let limit = if budget.hard { "hard" } else { "soft" };
    let policy = match budget.policy {
        BudgetPolicy::Freeze => "freeze",
        BudgetPolicy::End => "end",
    };
    let reached = budget.alerts.iter().map(|alert| alert.threshold).max();
    vec![
        budget.workspace.clone(),
        budget.month.clone(),
        dollars(budget.amount_micros),
        dollars(budget.spent_micros),
        dollars(budget.reserved_micros),
        limit.to_owned(),
        policy.to_owned(),
        reached.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
    ]
}

fn spanned(request: RequestBuilder, span: &Span) -> RequestBuilder {
    let Span { month, from, until } = span;
    request
        .query(&[("month", month)])
        .query(&[("from", from), ("until", until)])
}

fn filtered(request: RequestBuilder, runs: &WhichRuns) -> RequestBuilder {
    let WhichRuns {
        span,
        thread,
        agent,
        model,
        user,
    } = runs;
    let filters = [
        ("thread", thread),
        ("agent", agent),
        ("model", model),
        ("user", user),
    ];
    spanned(request, span).query(&filters)
}

pub(super) async fn usage(command: UsageCommand) -> Outcome {
    match command {
        UsageCommand::Show { span, by, target } => {
            let client = Client::new(&target)?;
            let request = spanned(client.get(&["usage"]), &span).query(&[("by", by.as_str())]);
            let shown: UsageShow = client.json(request).await?;
            if target.json {
                output::json(&shown)?;
                return Ok(0);
            }
            let mut rows: Vec<Vec<String>> = shown.rows.iter().map(usage_row).collect();
            let mut total = usage_row(&shown.total);
            total[0] = "total".to_owned();
            rows.push(total);
            let headings = [
                "NAME", "ENTRIES", "INPUT", "OUTPUT", "CACHED", "MODEL", "COMPUTE", "TOTAL",
            ];
            output::table(&headings, &rows)?;
        }
        UsageCommand::Export {
            span,
            format,
            target,
        } => {
            let client = Client::new(&target)?;
            let format = match format {
                Format::Jsonl => "jsonl",
                Format::Csv => "csv",
            };
            let request = client
                .get(&["usage", "export"])
                .query(&[("format", format)]);
            let mut answer = client.send(spanned(request, &span)).await?;
            while let Some(piece) = answer.chunk().await? {
                std::io::stdout().lock().write_all(&piece)?;
            }
        }
        UsageCommand::Runs { runs, by, target } => {
            let client = Client::new(&target)?;
            let mut request = filtered(client.get(&["usage", "runs"]), &runs);
            if let Some(by) = by {
                request = request.query(&[("by", by.as_str())]);
            }
            let shown: RunAnalytics = client.json(request).await?;
            if target.json {
                output::json(&shown)?;
            } else {
                runs_shown(&shown)?;
            }
        }
        UsageCommand::Tools { runs, target } => {
            let client = Client::new(&target)?;
            let request = filtered(client.get(&["usage", "tools"]), &runs);
            let shown: Tools = client.json(request).await?;
            if target.json {
                output::json(&shown.items)?;
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = shown
                .items
                .into_iter()
                .map(|tool| {
                    let counts = [tool.runs, tool.calls, tool.errors];
                    let counts = counts.map(|count| count.to_string());
                    std::iter::once(tool.tool).chain(counts).collect()
                })
                .collect();
            output::table(&["TOOL", "RUNS", "CALLS", "ERRORS"], &rows)?;
        }
    }
    Ok(0)
}

fn usage_row(row: &UsageRow) -> Vec<String> {
    let mark = if row.unpriced { "+ unpriced" } else { "" };
    let cached = row.cache_read_tokens.saturating_add(row.cache_write_tokens);
    vec![
        row.name.clone().unwrap_or_else(|| "-".to_owned()),
        row.entries.to_string(),
        row.input_tokens.to_string(),
        row.output_tokens.to_string(),
        cached.to_string(),
        dollars(row.model_cost_micros),
        dollars(row.compute_cost_micros),
        format!("{} {mark}", dollars(row.total_cost_micros))
            .trim_end()
            .to_owned(),
    ]
}

fn runs_shown(shown: &RunAnalytics) -> std::io::Result<()> {
    let total = &shown.total;
    let outcomes = format!(
        "{} ({} succeeded, {} failed, {} canceled)",
        total.total_runs, total.succeeded_runs, total.failed_runs, total.canceled_runs
    );
    let durations = format!(
        "mean {} ms, p50 {} ms, p95 {} ms, p99 {} ms",
        total.avg_duration_ms, shown.p50_duration_ms, shown.p95_duration_ms, shown.p99_duration_ms
    );
    output::fields(&[
        ("runs", outcomes),
        ("cost", dollars(total.total_cost_micros)),
        ("durations", durations),
    ])?;
    let group = |(name, sums): (String, &woodfrog_wire::native::billing::RunSums)| {
        vec![
            name,
            sums.total_runs.to_string(),
            sums.failed_runs.to_string(),
            dollars(sums.total_cost_micros),
        ]
    };
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    let groups = shown.groups.iter().map(|one| (name(&one.name), &one.sums));
    let rows: Vec<Vec<String>> = groups.map(group).collect();
    if !rows.is_empty() {
        output::table(&["NAME", "RUNS", "FAILED", "COST"], &rows)?;
    }
    let errors: Vec<Vec<String>> = shown
        .errors
        .iter()
        .map(|error| {
            vec![
                error.code.clone(),
                error.count.to_string(),
                at(Some(error.last_occurrence)),
                error.sample_message.chars().take(80).collect(),
            ]
        })
        .collect();
    if !errors.is_empty() {
        output::table(&["ERROR", "COUNT", "LAST", "MESSAGE"], &errors)?;
    }
    Ok(())
}

pub(super) async fn webhook(command: WebhookCommand) -> Outcome {
    match command {
        WebhookCommand::Create {
            address,
            events,
            description,
            target,
        } => {
            let client = Client::new(&target)?;
            let new = NewWebhook {
                url: address,
                description,
                events,
            };
            let request = client.post(&["webhooks"]).json(&new);
            let made: CreatedWebhook = client.json(request).await?;
            if target.json {
                output::json(&made)?;
            } else {
                output::line(&made.webhook.id)?;
                let text = format!("its secret is {}; it is not shown again", made.secret);
                output::note(&text);
            }
        }
        WebhookCommand::List { target } => {
            let client = Client::new(&target)?;
            let listed: Webhooks = client.json(client.get(&["webhooks"])).await?;
            webhooks_shown(&listed.items, target.json)?;
        }
        WebhookCommand::Show { id, target } => {
            let client = Client::new(&target)?;
            let shown: Webhook = client.json(client.get(&["webhooks", &id])).await?;
            if target.json {
                output::json(&shown)?;
            } else {
                webhooks_shown(&[shown], false)?;
            }
        }
        WebhookCommand::Enable { id, target } => {
            let client = Client::new(&target)?;
            let patch = WebhookPatch {
                enabled: Some(true),
                ..WebhookPatch::default()
            };
            let request = client.request(Method::PATCH, client.route(&["webhooks", &id]));
            let shown: Webhook = client.json(request.json(&patch)).await?;
            webhooks_shown(&[shown], target.json)?;
        }
        WebhookCommand::Delete { id, target } => {
            let client = Client::new(&target)?;
            client.send(client.delete(&["webhooks", &id])).await?;
        }
        WebhookCommand::Deliveries {
            id,
            state,
            limit,
            target,
        } => {
            let client = Client::new(&target)?;
            let request = client.get(&["webhooks", &id, "deliveries"]);
            let request = request
                .query(&[("state", state)])
                .query(&[("limit", limit)]);
            let listed: Deliveries = client.json(request).await?;
            if target.json {
                output::json(&listed.items)?;
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = listed.items.iter().map(delivery_row).collect();
            let headings = [
                "NUMBER", "EVENT", "AT", "STATE", "TRIES", "STATUS", "NEXT TRY", "ERROR",
            ];
            output::table(&headings, &rows)?;
        }
        WebhookCommand::Replay {
            id,
            number,
            failed_since,
            target,
        } => {
            let client = Client::new(&target)?;
            let which = match (number, failed_since) {
                (Some(number), _) => Replay::Number(number),
                (None, since) => Replay::FailedSince(since.unwrap_or(0)),
            };
            let request = client.post(&["webhooks", &id, "replay"]).json(&which);
            let replayed: Replayed = client.json(request).await?;
            if target.json {
                output::json(&replayed)?;
            } else {
                output::note(&format!("{} are tried again", replayed.count));
            }
        }
    }
    Ok(0)
}

fn webhooks_shown(webhooks: &[Webhook], json: bool) -> std::io::Result<()> {
    if json {
        return output::json(webhooks);
    }
    let row = |webhook: &Webhook| {
        let events = match webhook.events.as_slice() {
            [] => "all".to_owned(),
            events => events.join(","),
        };
        let state = match (webhook.enabled, webhook.failing_since) {
            (false, _) => "disabled",
            (true, Some(_)) => "failing",
            (true, None) => "enabled",
        };
        vec![
            webhook.id.clone(),
            webhook.url.clone(),
            events,
            state.to_owned(),
            at(Some(webhook.created_at)),
        ]
    };
    let rows: Vec<Vec<String>> = webhooks.iter().map(row).collect();
    output::table(&["ID", "URL", "EVENTS", "STATE", "CREATED"], &rows)
}

fn delivery_row(delivery: &Delivery) -> Vec<String> {
    let status = delivery.last_status;
    vec![
        delivery.number.to_string(),
        delivery.event.clone(),
        at(Some(delivery.at)),
        delivery.state.clone(),
        delivery.attempts.to_string(),
        status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        at(delivery.due_at),
        delivery.last_error.clone().unwrap_or_default(),
    ]
}
