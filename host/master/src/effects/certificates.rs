//! The certificates of listeners: read anew without a restart, and watched for their end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use app_host_core::command::Answer;
use app_host_core::foreign;
use app_host_core::ids::Generation;
use app_host_core::message::TlsByListener;
use app_host_core::restart::Refusal;
use app_host_core::status::CertificateStatus;
use app_host_core::tls::{CertificateInfo, Remains};

use super::Effects;
use crate::Input;
use crate::control::Reply;
use crate::facts::{Fact, Fields};

/// How often it is looked whether one ends soon.
const LOOK_EVERY: Duration = Duration::from_hours(24);

/// Certificates and keys that were read and checked, with what is known of each certificate.
pub(crate) type Read = (Arc<TlsByListener>, Arc<[Vec<CertificateInfo>]>);

impl Effects {
    /// Has the certificates of the active generation's listeners be read anew; the client is answered when workers have
    /// been told, or why nothing changes.
    pub(crate) fn reload_certificates(&self, reply: oneshot::Sender<Reply>) {
        let (preflight, inbox, generation) = (self.preflight.clone(), self.inbox.clone(), self.active);
        let active = self.active().clone();
        tokio::task::spawn_local(async move {
            let outcome = Box::new(preflight.read_certificates(&active).await);
            // The loop has ended: nobody is interested any more.
            let _ = inbox.send(Input::Certificates { generation, outcome, reply }).await;
        });
    }

    /// As [`reload_certificates`](Self::reload_certificates), for nobody who waits for an answer.
    pub(crate) fn renew_certificates(&self) {
        self.reload_certificates(oneshot::channel().0);
    }

    /// Gives workers what was read, if the generation that it is for is still active.
    pub(crate) fn certificates_read(
        &mut self,
        generation: Generation,
        outcome: Result<Read, Refusal>,
        reply: oneshot::Sender<Reply>,
    ) {
        let read = outcome.map_err(|refusal| refusal.to_string()).and_then(|read| {
            if generation == self.active { Ok(read) } else { Err("a restart has read them meanwhile".to_owned()) }
        });
        let answer = match read {
            Ok((tls, _)) if tls.is_empty() => Answer::nack("no listener has TLS"),
            Ok((tls, certificates)) => {
                self.workers.set_certificates(&tls);
                if let Some(active) = self.generations.get_mut(&generation) {
                    (active.tls, active.certificates) = (tls, certificates);
                }
                let listeners = self.active().tls.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
                let fields = Fields { listeners: Some(listeners), ..Fields::default() };
                self.tell(&Fact::info("certificates reloaded", fields));
                self.look_at_certificates();
                Answer::Ack
            }
            Err(detail) => {
                let answer = Answer::nack(&detail);
                let fields = Fields { detail: Some(detail), ..Fields::default() };
                self.tell(&Fact::error("certificates stay as they were", fields));
                answer
            }
        };
        // The client may have gone.
        let _ = reply.send(Reply::Answer(answer));
    }

    /// When certificates are to be looked at next, or the keys of session tickets to be rotated.
    pub(crate) fn tls_due(&self) -> Option<Instant> {
        let looked = (!self.active().tls.is_empty()).then_some(self.certificates_due);
        looked.into_iter().chain(self.workers.tickets_due()).min()
    }

    /// Does what is due.
    pub(crate) fn look_at_tls(&mut self) {
        let now = Instant::now();
        if self.certificates_due <= now && !self.active().tls.is_empty() {
            self.look_at_certificates();
        }
        if self.workers.tickets_due().is_some_and(|due| due <= now) {
            self.workers.rotate_tickets();
        }
    }

    /// Says which of them end soon, or have ended.
    pub(super) fn look_at_certificates(&mut self) {
        self.certificates_due = Instant::now() + LOOK_EVERY;
        let now = seconds_now();
        for (listener, info) in self.certificates() {
            let fields = Fields {
                listener: Some(listener.to_owned()),
                names: Some(names(info)),
                not_after: Some(rfc3339(info.not_after)),
                advice: Some("put the next one in place, and have ctl reload-certificates read it"),
                ..Fields::default()
            };
            match info.remains(now) {
                Remains::Enough => {}
                Remains::Little => self.tell(&Fact::warn("certificate ends soon", fields)),
                Remains::Nothing => self.tell(&Fact::error("certificate has expired", fields)),
            }
        }
    }

    /// Those of the active generation, for whoever asks.
    pub(crate) fn certificate_states(&self) -> Vec<CertificateStatus> {
        let now = seconds_now();
        let state = |(listener, info): (&str, &CertificateInfo)| CertificateStatus {
            listener: listener.to_owned(),
            names: info.names.iter().map(|name| foreign::line(name, foreign::MAX_NAME)).collect(),
            not_after: rfc3339(info.not_after),
            not_after_seconds: info.not_after,
            ends_soon: info.remains(now) != Remains::Enough,
        };
        self.certificates().map(state).collect()
    }

    fn certificates(&self) -> impl Iterator<Item = (&str, &CertificateInfo)> {
        let active = self.active();
        let listeners = active.tls.iter().zip(active.certificates.iter());
        listeners.flat_map(|((name, _), infos)| infos.iter().map(move |info| (name.as_str(), info)))
    }
}

fn names(info: &CertificateInfo) -> String {
    foreign::line(&info.names.join(", "), foreign::MAX_TEXT)
}

fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn rfc3339(seconds: i64) -> String {
    /// The last second that has four digits of a year.
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
