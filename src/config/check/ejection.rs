//! `ejection.*` of a pool.

use crate::config::document::{Item, Table};
use crate::config::model::Ejection;

pub(super) fn ejection(table: &Table<'_>, default: Option<Ejection>) -> Option<Ejection> {
    let mut enabled = default.is_some();
    let mut ejection = default.unwrap_or(Ejection::DEFAULT);
    table.set("enabled", &mut enabled, Item::bool);
    let or_off = |number: u32| (number > 0).then_some(number);
    table.set("consecutive_errors", &mut ejection.consecutive_errors, |item| Some(or_off(item.number(0..=1000)?)));
    table.set("success_rate", &mut ejection.success_rate, |item| Some(or_off(item.number(0..=100)?)));
    table.set("latency", &mut ejection.latency, |item| {
        let times = item.number(0..=100)?;
        if times == 1 {
            item.fault("value", "once the median is what half of the endpoints take: 2 to 100, or 0 for off");
        }
        Some(or_off(times))
    });
    table.set("interval", &mut ejection.interval, Item::duration);
    table.set("minimum_hosts", &mut ejection.minimum_hosts, |item| item.number(2..=1000));
    table.set("minimum_requests", &mut ejection.minimum_requests, |item| item.number(1..=1_000_000));
    table.set("base_time", &mut ejection.base_time, Item::duration);
    table.set("max_time", &mut ejection.max_time, Item::duration);
    table.set("max_ejected", &mut ejection.max_ejected, |item| item.number(0..=100));
    if ejection.max_time < ejection.base_time {
        let (most, base) = (ejection.max_time, ejection.base_time);
        table.fault("conflict", format!("`max_time` ({most:?}) is shorter than `base_time` ({base:?})"));
    }
    table.finish();
    enabled.then_some(ejection)
}
