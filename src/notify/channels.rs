//! Notices by WeChat and by webhook: what is due is tried, what fails is tried again later, each target for itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tracing::{Instrument, info_span, warn};

use super::{Error, Options, webhook};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::store::catalog::{Catalog, DeliveryOutcome, DeliveryRow};
use crate::texts::{self, Lang};
use crate::wechat;

/// Attempts under way at most.
const CONCURRENT: usize = 16;
/// Deliveries that are looked at together.
const BATCH_LIMIT: i64 = 200;
/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(500);
/// Pause after the first failure; doubled after each further one.
const FIRST_PAUSE_US: i64 = 10_000_000;
/// The longest pause.
const PAUSE_LIMIT_US: i64 = 3_600_000_000;
/// Characters of a `thing` in a template: WeChat refuses more.
const THING_LIMIT: usize = 20;

/// The part that runs by itself.
#[derive(Debug)]
pub struct Channels(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    clock: Clock,
    entropy: Entropy,
    catalog: Catalog,
    wechat: wechat::Handle,
    client: reqwest::Client,
    /// Targets that are being called: one call a target, so that a slow one holds up only itself.
    busy: Mutex<HashSet<(String, String)>>,
    room: Arc<Semaphore>,
}

impl Channels {
    /// # Errors
    /// The client for calls cannot be made.
    pub fn new(
        options: Options,
        clock: Clock,
        entropy: Entropy,
        catalog: Catalog,
        wechat: wechat::Handle,
    ) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner {
            client: webhook::client(&options)?,
            options,
            clock,
            entropy,
            catalog,
            wechat,
            busy: Mutex::default(),
            room: Arc::new(Semaphore::new(CONCURRENT)),
        })))
    }

    /// Runs until `shutdown` turns true. What is under way then is given up and tried again by the next start.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = crate::shutdown::requested(&mut shutdown) => return,
                _ = tick.tick() => {
                    if let Err(error) = self.look().await {
                        warn!(error = &error as &dyn std::error::Error, "notices by other channels are delivered later");
                    }
                }
            }
        }
    }

    /// Starts what is due.
    async fn look(&self) -> Result<(), Error> {
        let inner = &self.0;
        for row in inner.catalog.due_deliveries(inner.clock.now_us(), BATCH_LIMIT).await? {
            // WeChat's calls are for a user, a webhook's for its target.
            let whom = if row.channel == "wechat" { row.user_id.to_string() } else { row.target.clone() };
            let target = (row.channel.clone(), whom);
            let Ok(place) = Arc::clone(&inner.room).try_acquire_owned() else { return Ok(()) };
            if !inner.lock_busy().insert(target.clone()) {
                continue;
            }
            let inner = Arc::clone(inner);
            let span = info_span!("deliver", notification.id = %row.notification_id, channel = row.channel);
            tokio::spawn(
                async move {
                    if let Err(error) = inner.deliver(&row).await {
                        warn!(error = &error as &dyn std::error::Error, "a delivery is tried again");
                    }
                    inner.lock_busy().remove(&target);
                    drop(place);
                }
                .instrument(span),
            );
        }
        Ok(())
    }
}

/// What came of a try.
struct Tried {
    outcome: DeliveryOutcome,
    word: String,
    give_back: bool,
}

impl Inner {
    fn lock_busy(&self) -> std::sync::MutexGuard<'_, HashSet<(String, String)>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deliver(&self, row: &DeliveryRow) -> Result<(), Error> {
        let tried = match row.channel.as_str() {
            "webhook" => self.webhook(row).await?,
            _ => match self.wechat(row).await? {
                Some(tried) => tried,
                None => return Ok(()),
            },
        };
        let channel = if row.channel == "webhook" { "webhook" } else { "wechat" };
        metrics::counter!("volant_notify_attempts_total", "channel" => channel, "outcome" => match &tried.outcome {
            DeliveryOutcome::Delivered => "delivered",
            DeliveryOutcome::Again(_) => "again",
            DeliveryOutcome::Ended => "given_up",
        })
        .increment(1);
        let now_us = self.clock.now_us();
        self.catalog.record_delivery(row, &tried.outcome, &tried.word, None, tried.give_back, now_us).await?;
        Ok(())
    }

    /// When a delivery that failed is tried again; given up once the notice is too old.
    fn again(&self, row: &DeliveryRow) -> DeliveryOutcome {
        let now_us = self.clock.now_us();
        let give_up_us = i64::try_from(self.options.give_up_after.as_micros()).unwrap_or(i64::MAX);
        if now_us - row.created_at_us >= give_up_us {
            return DeliveryOutcome::Ended;
        }
        let doublings = u32::try_from(row.attempts.clamp(0, 20)).unwrap_or(20);
        let pause_us = (FIRST_PAUSE_US << doublings.min(20)).min(PAUSE_LIMIT_US);
        // Spread, so that what failed together does not come back together.
        DeliveryOutcome::Again(now_us + pause_us + (pause_us as f64 * 0.2 * self.entropy.fraction()) as i64)
    }

    async fn webhook(&self, row: &DeliveryRow) -> Result<Tried, Error> {
        let ended = |word: &str| Tried { outcome: DeliveryOutcome::Ended, word: word.to_owned(), give_back: false };
        let Some(hook) = self.catalog.webhook(&row.target).await?.filter(|hook| hook.disabled_at_us.is_none()) else {
            return Ok(ended("disabled"));
        };
        if webhook::check(&hook.url, self.options.webhooks_allow_private).is_err() {
            return Ok(ended("address_refused"));
        }
        let analysis_result: Value = serde_json::from_str(&row.payload).unwrap_or_default();
        let body = json!({
            "type": "analysis_complete_notification",
            "notification_id": row.notification_id,
            "user_id": row.user_id,
            "session_id": row.session_id,
            "created_at_us": row.created_at_us,
            "analysis_result": analysis_result,
        })
        .to_string();
        let timestamp_s = self.clock.now_us() / 1_000_000;
        let id = row.notification_id.to_string();
        let Some(signature) = webhook::signature(&hook.secret, &id, timestamp_s, &body) else {
            return Ok(ended("secret_unreadable"));
        };
        let call = self
            .client
            .post(&hook.url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", signature)
            .body(body);
        Ok(match call.send().await {
            Ok(answer) if answer.status().is_success() => {
                Tried { outcome: DeliveryOutcome::Delivered, word: "delivered".to_owned(), give_back: false }
            }
            Ok(answer) if answer.status() == StatusCode::GONE => {
                self.catalog.disable_webhook(&hook.webhook_id, self.clock.now_us()).await?;
                ended("gone")
            }
            Ok(answer) => {
                let word = format!("status_{}", answer.status().as_u16());
                Tried { outcome: self.again(row), word, give_back: false }
            }
            Err(error) => {
                let word = if error.is_timeout() { "timeout" } else { "unreachable" };
                Tried { outcome: self.again(row), word: word.to_owned(), give_back: false }
            }
        })
    }

    /// `None`: it is not yet time, and nothing was tried.
    async fn wechat(&self, row: &DeliveryRow) -> Result<Option<Tried>, Error> {
        let now_us = self.clock.now_us();
        let tried = |outcome, word: String, give_back| Some(Tried { outcome, word, give_back });
        if row.reached {
            // The user has it. A grant buys one message, so none is spent on what is known.
            return Ok(tried(DeliveryOutcome::Ended, "not_needed".to_owned(), true));
        }
        let due_us = row.created_at_us + i64::try_from(self.options.wechat_after.as_micros()).unwrap_or(i64::MAX);
        if now_us < due_us {
            self.catalog.postpone_delivery(row, due_us).await?;
            return Ok(None);
        }
        if !self.wechat.is_configured() {
            return Ok(tried(DeliveryOutcome::Ended, "not_configured".to_owned(), true));
        }
        let Some(openid) = self.catalog.openid_of(row.user_id).await? else {
            return Ok(tried(DeliveryOutcome::Ended, "no_user".to_owned(), true));
        };
        if !self.catalog.spend_grant(row, now_us).await? {
            return Ok(tried(DeliveryOutcome::Ended, "no_grant".to_owned(), false));
        }
        let lang = self.catalog.language_of(row.user_id).await?.and_then(|lang| lang.parse().ok()).unwrap_or(Lang::Zh);
        let fields = self.fields(row, lang);
        let language = if lang == Lang::Zh { "zh_CN" } else { "en_US" };
        let sent = self
            .wechat
            .send_subscribe_message(&openid, &row.target, &self.options.wechat_page, language, &fields)
            .await;
        Ok(match sent {
            Ok(()) => tried(DeliveryOutcome::Delivered, "delivered".to_owned(), false),
            // The user's word: the grant is gone as far as WeChat is concerned.
            Err(error) if error.is_refused_by_user() => tried(DeliveryOutcome::Ended, error.word(), false),
            Err(error) if error.is_retryable() => tried(self.again(row), error.word(), true),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "WeChat refuses the message as it is configured");
                tried(DeliveryOutcome::Ended, error.word(), true)
            }
        })
    }

    /// The fields of the template, filled in, each as WeChat takes its kind.
    fn fields(&self, row: &DeliveryRow, lang: Lang) -> BTreeMap<String, String> {
        let result: Value = serde_json::from_str(&row.payload).unwrap_or_default();
        let created = Timestamp::from_microsecond(row.created_at_us).unwrap_or(Timestamp::UNIX_EPOCH);
        let local = Offset::constant(8).to_datetime(created);
        let number = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        let arguments = [
            ("strokes", number(&result["stroke_count"])),
            ("score", number(&result["scores"]["overall"])),
            ("session", row.session_id.to_string()),
            ("time", local.strftime("%Y-%m-%d %H:%M").to_string()),
            ("text", texts::message(lang, "analysis_done", &[])),
        ];
        let fill = |template: &str| {
            let filled = arguments
                .iter()
                .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
            filled.chars().take(THING_LIMIT).collect::<String>()
        };
        self.options
            .wechat_fields
            .iter()
            .filter_map(|field| field.split_once('='))
            .map(|(name, template)| (name.trim().to_owned(), fill(template)))
            .collect()
    }
}
