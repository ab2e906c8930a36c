//! Writing metrics that are read from elsewhere at the time they are asked for.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;

/// Begins a metric. Its help ends in a full stop, as the library writes that of others.
fn begin<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, &format!("{help}."), None, kind)
}

/// Writes a family of gauges.
pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = begin(encoder, name, help, MetricType::Gauge)?;
    for (labels, value) in series {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Writes a family of counters. `name` is without `_total`, which the encoder adds.
pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = begin(encoder, name, help, MetricType::Counter)?;
    for (labels, value) in series {
        metric
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, V, f64>(&value, None)?;
    }
    Ok(())
}

/// What a histogram has seen: how many values were in each range, by its upper bound, and their
/// sum.
pub(super) struct Observations {
    pub(super) sum: f64,
    pub(super) buckets: Vec<(f64, u64)>,
}

/// Writes a family of histograms.
pub(super) fn histograms<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, Observations)>,
) -> fmt::Result {
    let mut metric = begin(encoder, name, help, MetricType::Histogram)?;
    for (labels, Observations { sum, buckets }) in series {
        let count = buckets.iter().map(|(_, count)| count).sum();
        metric
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

/// Writes a gauge without labels.
pub(super) fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &V,
) -> fmt::Result {
    begin(encoder, name, help, MetricType::Gauge)?.encode_gauge(value)
}

/// Writes a counter without labels. `name` is without `_total`.
pub(super) fn counter<V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &V,
) -> fmt::Result {
    begin(encoder, name, help, MetricType::Counter)?
        .encode_counter::<NoLabelSet, V, f64>(value, None)
}

/// Seconds since 1970; 0 for "never".
pub(super) fn timestamp(time: Option<SystemTime>) -> f64 {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0.0, |since| since.as_secs_f64())
}
