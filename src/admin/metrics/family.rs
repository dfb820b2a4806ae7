//! One metric and its samples, in the types of the `prometheus` crate, made anew for each scrape:
//! what is counted lives with those who count, and no registry has to be kept in step with it.

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A histogram as the text format wants it.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Upper bounds in seconds, and how many samples are within each, those of lower bounds included.
    pub(super) buckets: Vec<(f64, u64)>,
    /// All samples.
    pub(super) count: u64,
    /// Of all samples, in seconds.
    pub(super) sum: f64,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<Metric>,
}

impl Family {
    /// A number that only grows; its name ends in `_total`.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// A number that comes and goes.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    /// A distribution.
    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// A metric with one sample and no labels.
    pub(super) fn of(mut self, value: impl Into<f64>) -> Self {
        self.add(&[], value);
        self
    }

    /// Adds the sample with these labels; each set of labels comes once.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: impl Into<f64>) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value.into());
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value.into());
            metric.set_gauge(gauge);
        }
        self.samples.push(metric);
    }

    /// Adds the distribution with these labels.
    pub(super) fn add_histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut shown = prometheus::proto::Histogram::default();
        shown.set_bucket(histogram.buckets.iter().map(bucket).collect());
        shown.set_sample_count(histogram.count);
        shown.set_sample_sum(histogram.sum);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(shown);
        self.samples.push(metric);
    }

    /// What the encoder takes; nothing where there is no sample, which it would refuse.
    pub(super) fn finish(self) -> Option<MetricFamily> {
        if self.samples.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.samples);
        Some(family)
    }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
