//! What a quantity costs. Whole micro-dollars only: each kind of an entry is rounded up once, so a
//! sum is never less than what was used, and never a micro-dollar per kind more.

use std::collections::BTreeMap;

use woodfrog_types::usage::{ComputePrice, Cost, ModelPrice, PriceTable, Quantity, Rung, Tokens};
use woodfrog_types::{Fault, Timestamp};

/// Models in one table.
pub const MODELS_MAX: usize = 1_000;
/// Characters of a model's name.
pub const MODEL_CHARS_MAX: usize = 200;
/// The highest price: a dollar for one token, or for a second.
pub const PRICE_MAX: u64 = 1_000_000_000_000;

/// Tokens, and seconds, that a price is for.
const PER: u128 = 1_000_000;
/// Thousandths of a CPU times milliseconds, in a second of a CPU.
const CPU_SECOND: u128 = 1_000 * 1_000;
/// MiB times milliseconds, in a second of a GiB.
const GIB_SECOND: u128 = 1_024 * 1_000;

/// Version 1: the prices that a new server begins with.
pub fn built_in() -> PriceTable {
    let model = |input, output, cache_read, cache_write| ModelPrice {
        input,
        output,
        cache_read,
        cache_write,
    };
    let models = [
        (
            "claude-sonnet-4-5-20250929",
            model(3_000_000, 15_000_000, 300_000, Some(3_750_000)),
        ),
        (
            "claude-opus-4-5-20251101",
            model(15_000_000, 75_000_000, 1_500_000, Some(18_750_000)),
        ),
        (
            "claude-haiku-4-0-20250604",
            model(250_000, 1_250_000, 25_000, None),
        ),
    ];
    let awake = ComputePrice {
        // 0.000014 dollars for a second of a CPU.
        cpu: 14_000_000,
        memory: 0,
        disk: 0,
    };
    // 0.10 dollars for a GiB in a month of 30 days; an archive is a quarter of that.
    let asleep = ComputePrice {
        cpu: 0,
        memory: 0,
        disk: 38_580,
    };
    let archived = ComputePrice {
        disk: 9_645,
        ..asleep
    };
    PriceTable {
        version: 1,
        created_at: Timestamp::from_millis(0),
        created_by: None,
        models: BTreeMap::from(models.map(|(name, price)| (name.to_owned(), price))),
        compute: [awake, asleep, asleep, archived],
    }
}

/// What a quantity costs by this table. A model that is not in it costs nothing and is flagged.
pub fn cost(table: &PriceTable, quantity: &Quantity) -> Cost {
    match quantity {
        Quantity::Tokens { model, tokens } => tokens_cost(table.models.get(model), *tokens),
        Quantity::Compute {
            rung,
            cpu_millis_ms,
            memory_mib_ms,
            disk_mib_ms,
        } => {
            let price = table.rung(*rung);
            let compute = share(*cpu_millis_ms, price.cpu, CPU_SECOND)
                .saturating_add(share(*memory_mib_ms, price.memory, GIB_SECOND))
                .saturating_add(share(*disk_mib_ms, price.disk, GIB_SECOND));
            Cost {
                compute,
                ..Cost::default()
            }
        }
    }
}

fn tokens_cost(price: Option<&ModelPrice>, tokens: Tokens) -> Cost {
    let Some(price) = price else {
        return Cost {
            unpriced: tokens != Tokens::default(),
            ..Cost::default()
        };
    };
    let model = share(tokens.input, price.input, 1)
        .saturating_add(share(tokens.output, price.output, 1))
        .saturating_add(share(tokens.cache_read, price.cache_read, 1))
        .saturating_add(share(tokens.cache_write, price.cache_write.unwrap_or(0), 1));
    Cost {
        model,
        compute: 0,
        unpriced: tokens.cache_write > 0 && price.cache_write.is_none(),
    }
}

/// `units` at `price` for a million times `unit` of them, rounded up.
fn share(units: u64, price: u64, unit: u128) -> u64 {
    let micros = (u128::from(units) * u128::from(price)).div_ceil(PER * unit);
    u64::try_from(micros).unwrap_or(u64::MAX)
}

/// What a running sandbox of this size costs in `millis`, less what it costs on `rung`: what its
/// sleep saves.
pub fn saved(table: &PriceTable, awake: &Quantity, asleep: &Quantity) -> u64 {
    let (awake, asleep) = (cost(table, awake), cost(table, asleep));
    awake.compute.saturating_sub(asleep.compute)
}

/// Refuses a table that cannot be used. Its version and its time are the store's concern.
pub fn validate(table: &PriceTable) -> Result<(), Fault> {
    if table.models.len() > MODELS_MAX {
        let text = format!("a price table has at most {MODELS_MAX} models");
        return Err(Fault::invalid("models", text));
    }
    for (name, price) in &table.models {
        let chars = name.chars().count();
        let named = (1..=MODEL_CHARS_MAX).contains(&chars) && !name.chars().any(char::is_control);
        if !named {
            let text = format!(
                "a model's name has 1 to {MODEL_CHARS_MAX} characters, none of them a control \
                 character"
            );
            return Err(Fault::invalid("models", text));
        }
        let kinds = [
            ("input", price.input),
            ("output", price.output),
            ("cache_read", price.cache_read),
            ("cache_write", price.cache_write.unwrap_or(0)),
        ];
        for (kind, price) in kinds {
            limited(&format!("models.{name}.{kind}"), price)?;
        }
    }
    for rung in Rung::ALL {
        let price = table.rung(rung);
        let kinds = [
            ("cpu", price.cpu),
            ("memory", price.memory),
            ("disk", price.disk),
        ];
        for (kind, price) in kinds {
            limited(&format!("compute.{}.{kind}", rung.as_str()), price)?;
        }
    }
    Ok(())
}

fn limited(field: &str, price: u64) -> Result<(), Fault> {
    if price > PRICE_MAX {
        let text = format!("a price is at most {PRICE_MAX} micro-dollars per million");
        return Err(Fault::invalid(field, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
