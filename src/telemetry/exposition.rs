//! From sums to Prometheus' text.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto;

use crate::telemetry::names::{Kind, Metric};
use crate::telemetry::series::Times;

/// The content type of what [`crate::telemetry::metrics::Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Takes the values that are asked for only at a scrape.
#[derive(Debug, Default)]
pub struct GaugeSink {
    families: BTreeMap<&'static str, (&'static Metric, Vec<proto::Metric>)>,
}

impl GaugeSink {
    /// The value of `metric` for `labels`, which are given in the order of `metric.labels`.
    ///
    /// A counter's value is its total. Histograms have no single value and are passed over.
    pub fn set(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        let mut sample = labelled(metric, labels.iter().copied());
        match metric.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Kind::Histogram => return,
        }
        self.push(metric, sample);
    }

    /// The sums of a counter or gauge.
    pub(super) fn sums(&mut self, metric: &'static Metric, sums: BTreeMap<Box<[Box<str>]>, u64>) {
        for (labels, sum) in sums {
            let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
            self.set(metric, &labels, sum as f64);
        }
    }

    /// The sums of a histogram.
    pub(super) fn times(&mut self, metric: &'static Metric, sums: BTreeMap<Box<[Box<str>]>, Times>) {
        for (labels, times) in sums {
            let mut histogram = proto::Histogram::default();
            histogram.set_sample_count(times.count());
            histogram.set_sample_sum(times.seconds());
            let buckets = times.cumulative().map(|(bound, count)| {
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            let mut sample = labelled(metric, labels.iter().map(|label| &**label));
            sample.set_histogram(histogram);
            self.push(metric, sample);
        }
    }

    fn push(&mut self, metric: &'static Metric, sample: proto::Metric) {
        let (_, samples) = self.families.entry(metric.name).or_insert_with(|| (metric, Vec::new()));
        // A doubled series would make the scraper refuse the whole page.
        match samples.iter_mut().find(|has| has.get_label() == sample.get_label()) {
            Some(has) => *has = sample,
            None => samples.push(sample),
        }
    }

    pub(super) fn encode(self) -> String {
        let families: Vec<_> = self
            .families
            .into_values()
            .map(|(metric, samples)| {
                let mut family = proto::MetricFamily::default();
                family.set_name(metric.name.to_owned());
                family.set_help(metric.help.to_owned());
                family.set_field_type(match metric.kind {
                    Kind::Counter => proto::MetricType::COUNTER,
                    Kind::Gauge => proto::MetricType::GAUGE,
                    Kind::Histogram => proto::MetricType::HISTOGRAM,
                });
                family.set_metric(samples);
                family
            })
            .collect();
        let mut text = String::new();
        // It fails only on families without samples or name, and there are none.
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

fn labelled<'a>(metric: &Metric, values: impl Iterator<Item = &'a str>) -> proto::Metric {
    let pairs = metric.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}
