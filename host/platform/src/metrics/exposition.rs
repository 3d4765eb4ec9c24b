//! The text that Prometheus reads (its text format, version 0.0.4), of one snapshot.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. Every label has few values: slots and
//! generations only of workers that live, reasons only of those that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Error;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use app_host_core::ids::{Generation, Slot};
use app_host_core::not_moved::NotMoved;
use app_host_core::not_resumed::{LongLived, NotResumed};
use app_host_core::refused::Refused;
use app_host_core::restart::{Phase, WorkerState};
use app_host_core::status::{Measured, WorkerStatus};

use super::counters::COUNTERS;
use super::stages::BOUNDS_MS;
use super::{Durations, Snapshot};
use crate::sys::stats::LATENCY_BOUNDS;

/// What every name of ours begins with.
const PREFIX: &str = "app_host";

/// The text and its media type. `master` is what the kernel says of the master's own process; what it says of
/// the workers stands in their status.
pub fn text(snapshot: &Snapshot, master: Measured) -> (String, &'static str) {
    let mut registry = Registry::default();
    let own = Own { cpu: master.cpu_ms.map(seconds), memory: master.memory_bytes };
    registry.sub_registry_with_prefix(PREFIX).register_collector(Box::new(Everything(snapshot.clone())));
    registry.register_collector(Box::new(own));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("writing to a string never fails");
    (text, prometheus_text::CONTENT_TYPE)
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

/// The master's own process, by the names that every process has.
#[derive(Debug)]
struct Own {
    cpu: Option<f64>,
    memory: Option<u64>,
}

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut write = Writer(&mut encoder);
        if let Some(cpu) = self.cpu {
            write.counter("process_cpu", "CPU time that the master has used", Some(&Unit::Seconds), &cpu)?;
        }
        if let Some(memory) = self.memory {
            write.gauge("process_resident_memory", "Resident memory of the master", Some(&Unit::Bytes), &memory)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Everything(Snapshot);

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut write = Writer(&mut encoder);
        self.requests(&mut write)?;
        self.workers(&mut write)?;
        self.restarts(&mut write)?;
        self.master(&mut write)
    }
}

impl Everything {
    fn requests(&self, write: &mut Writer<'_, '_>) -> Result<(), Error> {
        let Snapshot { status, figures, .. } = &self.0;
        for (counter, value) in COUNTERS.iter().zip(&figures.counters) {
            write.counter(counter.name, counter.help, None, value)?;
        }
        let responses = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(figures.responses);
        let responses = responses.map(|(class, count)| ([("class", class.to_owned())], count));
        write.counters("responses", "Responses by the class of their status", None, responses)?;
        let refused = Refused::ALL.iter().zip(&figures.refused);
        let refused = refused.map(|(why, count)| ([("reason", why.to_string())], *count));
        write.counters("requests_refused", "Clients refused below the app, by reason", None, refused)?;
        for (what, name, help) in [
            (
                LongLived::WebSocket,
                "websockets_not_resumed",
                "WebSockets that could have gone on in another worker and did not, by reason",
            ),
            (
                LongLived::EventStream,
                "event_streams_not_resumed",
                "Event streams that could have gone on in another worker and did not, by reason",
            ),
        ] {
            let ended = NotResumed::ALL.iter().zip(figures.not_resumed.get(what as usize).into_iter().flatten());
            let ended = ended.map(|(why, count)| ([("reason", why.to_string())], *count));
            write.counters(name, help, None, ended)?;
        }
        let not_moved = NotMoved::ALL.iter().zip(&figures.not_moved);
        let not_moved = not_moved.map(|(why, count)| ([("reason", why.to_string())], *count));
        let help = "HTTP/2 connections that were to go on in another worker and did not, by reason";
        write.counters("http2_connections_not_moved", help, None, not_moved)?;
        let sum = |of: fn(&WorkerStatus) -> u64| status.workers.iter().map(of).fold(0, u64::wrapping_add);
        write.gauge("requests_in_flight", "Requests whose response isn't complete", None, &sum(|it| it.in_flight))?;
        write.gauge("connections", "Connections that are open", None, &sum(|it| it.connections))?;
        let bounds = LATENCY_BOUNDS.iter().map(|nanos| Duration::from_nanos(*nanos).as_secs_f64());
        let help = "From a request's head until its response is complete or given up; without upgraded connections";
        let mut histogram = write.descriptor("request_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let sum = Duration::from_nanos(figures.latency.nanos);
        write_histogram(&mut histogram, bounds, &figures.latency.classes, sum)
    }

    fn workers(&self, write: &mut Writer<'_, '_>) -> Result<(), Error> {
        let Snapshot { status, figures, .. } = &self.0;
        let mut states = WorkerState::ALL.iter().map(|state| (state.as_str(), 0_u64)).collect::<BTreeMap<_, _>>();
        for worker in &status.workers {
            *states.entry(&worker.state).or_default() += 1;
        }
        let states = states.into_iter().map(|(state, count)| ([("state", state.to_owned())], count));
        write.gauges("workers", "Workers by their state", None, states)?;
        write.gauge(
            "workers_configured",
            "Workers that are configured",
            None,
            &u64::from(status.workers_configured),
        )?;
        write.counter("respawns", "Respawns of workers that had ended by themselves", None, &figures.respawns)?;
        let exits = [("true", figures.exits.expected), ("false", figures.exits.unexpected)];
        let exits = exits.map(|(expected, count)| ([("expected", expected.to_owned())], count));
        write.counters("worker_exits", "Workers that have ended", None, exits)?;
        let kills = figures.kills.iter().map(|(why, count)| ([("why", why.clone())], *count));
        write.counters("worker_kills", "Workers that were sent SIGKILL", None, kills)?;
        let name = "worker_cpu";
        write.counters(name, "CPU time by slot and generation", Some(&Unit::Seconds), self.cpu())?;
        let name = "worker_resident_memory";
        write.gauges(name, "Resident memory by slot and generation", Some(&Unit::Bytes), self.memory())
    }

    fn restarts(&self, write: &mut Writer<'_, '_>) -> Result<(), Error> {
        let figures = &self.0.figures;
        let restarts = figures
            .restarts
            .iter()
            .map(|each| ([("verdict", each.verdict.clone()), ("reason", each.reason.clone())], each.count));
        write.counters("restarts", "Requests for a restart by what became of them", None, restarts)?;
        let help = "How long the stages of restarts took";
        let mut family = write.descriptor("restart_stage", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (stage, Durations { classes, sum }) in &figures.stages {
            let labels = [("stage", stage.clone())];
            let bounds = BOUNDS_MS.iter().map(|millis| seconds(*millis));
            write_histogram(&mut family.encode_family(&labels)?, bounds, classes, *sum)?;
        }
        Ok(())
    }

    fn master(&self, write: &mut Writer<'_, '_>) -> Result<(), Error> {
        let status = &self.0.status;
        let phases: BTreeSet<&str> = Phase::ALL
            .iter()
            .filter(|phase| **phase != Phase::Exited)
            .map(|phase| phase.as_str())
            .chain([status.phase.as_str()])
            .collect();
        let phases = phases.into_iter().map(|phase| ([("phase", phase.to_owned())], u64::from(phase == status.phase)));
        write.gauges("phase", "1 for the phase that the master is in", None, phases)?;
        let ends = status.certificates.iter().map(|certificate| {
            let labels = [("listener", certificate.listener.clone()), ("names", certificate.names.join(","))];
            (labels, certificate.not_after_seconds)
        });
        let help = "When a certificate ends, in seconds since 1970";
        write.gauges("certificate_not_after", help, Some(&Unit::Seconds), ends)?;
        let help =
            "Times that a listener was found shut down, without its file or with other options than it was given";
        write.counter("listener_shutdowns", help, None, &self.0.figures.listener_shutdowns)?;
        let down = u64::try_from(status.listeners_down.len()).unwrap_or(u64::MAX);
        write.gauge("listeners_down", "Listeners that turn clients away", None, &down)?;
        write.gauge("active_generation", "The generation that is active", None, &status.generation.0)?;
        write.gauge("uptime", "For how long the master runs", Some(&Unit::Seconds), &seconds(status.uptime_ms))?;
        let labels = [
            ("app", status.app.clone()),
            ("app_version", status.app_version.clone()),
            ("version", status.version.get(..12).unwrap_or(&status.version).to_owned()),
        ];
        write.info("app", "The app that is active", &labels)?;
        write.info("build", "The program of the master", &[("version", status.app_host.clone())])
    }

    /// By slot and generation: what is used by now. Where that isn't known of one that lives there is nothing,
    /// so that none goes backwards.
    fn cpu(&self) -> Vec<(WorkerLabels, f64)> {
        let Snapshot { status, figures, .. } = &self.0;
        let mut used: BTreeMap<(Slot, Generation), Option<Duration>> =
            figures.spent.iter().map(|spent| ((spent.slot, spent.generation), Some(spent.cpu))).collect();
        for worker in &status.workers {
            let sum = used.entry((worker.slot, worker.generation)).or_insert(Some(Duration::ZERO));
            *sum = sum.zip(worker.measured.cpu_ms).map(|(sum, more)| sum.saturating_add(Duration::from_millis(more)));
        }
        used.into_iter()
            .filter_map(|((slot, generation), sum)| Some((worker_labels(slot, generation), sum?.as_secs_f64())))
            .collect()
    }

    fn memory(&self) -> Vec<(WorkerLabels, u64)> {
        let mut sums = BTreeMap::new();
        for worker in &self.0.status.workers {
            if let Some(bytes) = worker.measured.memory_bytes {
                *sums.entry((worker.slot, worker.generation)).or_default() += bytes;
            }
        }
        sums.into_iter().map(|((slot, generation), sum)| (worker_labels(slot, generation), sum)).collect()
    }
}

type WorkerLabels = [(&'static str, String); 2];

fn worker_labels(slot: Slot, generation: Generation) -> WorkerLabels {
    [("slot", slot.to_string()), ("generation", generation.to_string())]
}

fn write_histogram(
    encoder: &mut MetricEncoder<'_>,
    bounds: impl Iterator<Item = f64>,
    classes: &[u64],
    sum: Duration,
) -> Result<(), Error> {
    let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(classes.iter().copied()).collect();
    let count = classes.iter().copied().fold(0, u64::wrapping_add);
    encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
}

/// Writes whole metrics.
struct Writer<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    /// A full stop is added to what helps.
    fn descriptor<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, Error> {
        self.0.encode_descriptor(name, &format!("{help}."), unit, kind)
    }

    fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: &V,
    ) -> Result<(), Error> {
        self.descriptor(name, help, unit, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(value, None)
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: &V,
    ) -> Result<(), Error> {
        self.descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(value)
    }

    fn counters<V: EncodeCounterValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = ([(&'static str, String); N], V)>,
    ) -> Result<(), Error> {
        let mut family = self.descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = ([(&'static str, String); N], V)>,
    ) -> Result<(), Error> {
        let mut family = self.descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn info<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&'static str, String); N],
    ) -> Result<(), Error> {
        self.descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }
}
