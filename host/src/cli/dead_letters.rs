//! `pawl dead-letters`: list, show and replay what could not be processed.

use super::exit::UsageError;
use super::settings::BrokerArgs;
use super::{Output, logging, shutdown};
use crate::config::{Config, Kafka, Route};
use crate::kafka::dead_letters::filter::{Filter, OfPlugin};
use crate::kafka::dead_letters::letter::{Letter, Place};
use crate::kafka::dead_letters::read;
use crate::kafka::dead_letters::replay::{Tally, replay};
use anyhow::bail;
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters, one line each
    List(ListArgs),
    /// Print dead letters with all that is in them, one JSON object per line
    Show(ShowArgs),
    /// Produce dead letters to the topics they came from: each runs anew, once
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Columns, separated by tabs: TOPIC/PARTITION/OFFSET, time, workflow, attempts, state (replayed or -), reason.

Example:
  pawl dead-letters list --pending --since 2h
  pawl dead-letters list --plugin delete-batch --reason \"no such table\"")]
pub struct ListArgs {
    /// Only those that were not replayed
    #[arg(long)]
    pending: bool,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pawl dead-letters show records_to_be_deleted.dlq/0/17
  pawl dead-letters show --id rec-1")]
pub struct ShowArgs {
    /// Only the one that lies at TOPIC/PARTITION/OFFSET, as `list` prints it
    #[arg(value_name = "PLACE", conflicts_with = "topic")]
    place: Option<Place>,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A replayed letter is marked on its topic and not replayed again; a replay that was killed is finished by
running it again. The message carries a header pawl-replay, by which it has a workflow of its own.

Example:
  pawl dead-letters replay --since 2h --dry-run
  pawl dead-letters replay --id rec-1")]
pub struct ReplayArgs {
    /// Only the one that lies at TOPIC/PARTITION/OFFSET, as `list` prints it
    #[arg(value_name = "PLACE", conflicts_with = "topic")]
    place: Option<Place>,
    /// Only say what would be replayed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    which: WhichArgs,
}

/// Which dead letters, and where. All that is given must fit.
#[derive(Debug, Clone, Args)]
struct WhichArgs {
    /// The dead-letter topic; without it those of the configuration file's routes
    #[arg(short, long)]
    topic: Option<String>,
    /// Only those of this route
    #[arg(long)]
    route: Option<String>,
    /// Only those of the message with this id, or of this workflow (ROUTE/ID)
    #[arg(long)]
    id: Option<String>,
    /// Only those whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only what died since then: a duration such as 2h, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Only those of this plugin: its name, or the first digits of its digest
    #[arg(long)]
    plugin: Option<String>,
    #[command(flatten)]
    brokers: BrokerArgs,
}

/// What the arguments come to.
struct Which {
    kafka: Kafka,
    topics: Vec<String>,
    filter: Filter,
}

pub fn run(command: DeadLettersCommand, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    match command {
        DeadLettersCommand::List(args) => list(args),
        DeadLettersCommand::Show(args) => show(args),
        DeadLettersCommand::Replay(args) if args.dry_run => dry_run(args),
        DeadLettersCommand::Replay(args) => run_anew(args),
    }
}

fn list(args: ListArgs) -> anyhow::Result<()> {
    let which = args.which.resolve(None)?;
    let mut out = io::stdout().lock();
    each(&which, |letter, replayed| match args.pending && replayed {
        true => Ok(()),
        false => writeln!(out, "{}", line(letter, replayed)),
    })
}

fn show(args: ShowArgs) -> anyhow::Result<()> {
    let which = args.which.resolve(args.place.clone())?;
    let mut out = io::stdout().lock();
    let mut found = false;
    each(&which, |letter, replayed| {
        found = true;
        writeln!(out, "{}", letter.json(replayed))
    })?;
    match args.place {
        Some(place) if !found => {
            bail!("there is no dead letter at {place}; `pawl dead-letters list` shows where they are")
        }
        _ => Ok(()),
    }
}

fn dry_run(args: ReplayArgs) -> anyhow::Result<()> {
    let which = args.which.resolve(args.place)?;
    let mut out = io::stdout().lock();
    let mut tally = Tally::default();
    let mut due = 0;
    each(&which, |letter, replayed| match tally.add(letter, replayed) {
        Some(_) => {
            due += 1;
            writeln!(out, "{}", line(letter, replayed))
        }
        None => Ok(()),
    })?;
    tell(&tally);
    writeln!(out, "would replay {due} of {}", closing(&tally))?;
    Ok(())
}

fn run_anew(args: ReplayArgs) -> anyhow::Result<()> {
    let which = args.which.resolve(args.place)?;
    let mut tally = Tally::default();
    let replayed = shutdown::block_on(async {
        let stop = shutdown::on_signal()?;
        for topic in &which.topics {
            replay(&which.kafka, topic, &which.filter, &stop, &mut tally).await?;
        }
        Ok(())
    });
    tell(&tally);
    match replayed {
        Ok(()) => writeln!(io::stdout(), "replayed {} of {}", tally.replayed, closing(&tally))?,
        // How many there are is not known.
        Err(_) => writeln!(io::stdout(), "replayed {}, then broke off", tally.replayed)?,
    }
    replayed?;
    if tally.refused > 0 {
        bail!("Kafka refused {} dead letters; they stay where they are", tally.refused);
    }
    Ok(())
}

fn tell(tally: &Tally) {
    for (place, reason) in &tally.told {
        eprintln!("{place}: {}", printable(reason));
    }
}

fn closing(tally: &Tally) -> String {
    let mut text = format!("{} dead letters", tally.matched);
    for (count, what) in [(tally.before, "already replayed"), (tally.skipped, "skipped"), (tally.refused, "refused")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn each(which: &Which, mut each: impl FnMut(&Letter, bool) -> io::Result<()>) -> anyhow::Result<()> {
    for topic in &which.topics {
        read::read(&which.kafka, topic, &which.filter, &mut each)?;
    }
    Ok(())
}

impl WhichArgs {
    fn resolve(self, place: Option<Place>) -> anyhow::Result<Which> {
        let kafka = self.brokers.kafka()?;
        let routes = self.brokers.file()?.map(|config: Config| config.routes).unwrap_or_default();
        let plugin = self.plugin.map(|plugin| of_plugin(plugin, &routes)).transpose()?;
        let named = place.as_ref().map(|place| place.topic.clone()).or(self.topic);
        let topics = match named {
            Some(topic) => vec![topic],
            None => topics(&routes, self.route.as_deref())?,
        };
        let (route, id, reason, since) = (self.route, self.id, self.reason, self.since);
        Ok(Which { kafka, topics, filter: Filter { id, reason, since, plugin, route, place } })
    }
}

/// The dead-letter topics of the routes, each once.
fn topics(routes: &[Route], only: Option<&str>) -> Result<Vec<String>, UsageError> {
    let mut topics: Vec<String> = Vec::new();
    for route in routes.iter().filter(|route| only.is_none_or(|only| route.name == only)) {
        if !topics.contains(&route.dead_letters) {
            topics.push(route.dead_letters.clone());
        }
    }
    match (topics.is_empty(), only) {
        (false, _) => Ok(topics),
        (true, Some(only)) if !routes.is_empty() => Err(UsageError(format!(
            "there is no route `{only}`; the routes are: {}; or name the dead-letter topic with --topic",
            listed(routes.iter().map(|route| route.name.as_str()))
        ))),
        (true, _) => Err(UsageError(
            "no dead-letter topic: name it with --topic, or a configuration file with routes with --config".to_owned(),
        )),
    }
}

fn of_plugin(plugin: String, routes: &[Route]) -> Result<OfPlugin, UsageError> {
    let named: Vec<String> =
        routes.iter().filter(|route| route.plugin == plugin).map(|route| route.name.clone()).collect();
    if !named.is_empty() {
        return Ok(OfPlugin::Routes(named));
    }
    if !plugin.is_empty() && plugin.len() <= 64 && plugin.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(OfPlugin::Digest(plugin.to_ascii_lowercase()));
    }
    let known = match routes {
        [] => "name a configuration file with routes with --config".to_owned(),
        routes => {
            format!("the plugins of the routes are: {}", listed(routes.iter().map(|route| route.plugin.as_str())))
        }
    };
    Err(UsageError(format!(
        "`{plugin}` is neither the plugin of a route nor the beginning of a digest (hexadecimal); {known}"
    )))
}

/// In their order, each once.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut unique: Vec<&str> = Vec::new();
    names.for_each(|name| {
        if !unique.contains(&name) {
            unique.push(name);
        }
    });
    unique.join(", ")
}

/// Milliseconds since the Unix epoch.
fn since(text: &str) -> Result<u64, String> {
    let time = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH),
        Err(_) => humantime::parse_rfc3339_weak(text)
            .map_err(|_| "neither a duration such as 2h nor a time such as 2026-01-31T12:00:00Z".to_owned())?,
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn line(letter: &Letter, replayed: bool) -> String {
    let text =
        |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map_or("-".to_owned(), printable);
    [
        letter.place().to_string(),
        letter.message.timestamp.map_or("-".to_owned(), time),
        text(&letter.workflow),
        letter.attempts.map_or("-".to_owned(), |attempts| attempts.to_string()),
        if replayed { "replayed" } else { "-" }.to_owned(),
        text(&letter.reason),
    ]
    .join("\t")
}

/// A time that a producer made up may be in no year that can be written.
fn time(millis: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800_000;
    match millis < YEAR_10000 {
        true => humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string(),
        false => millis.to_string(),
    }
}

/// On one line, and nothing that a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::contract::{Bytes, Header, Message};
    use std::path::Path;

    fn routes() -> Vec<Route> {
        let file = "[kafka]\nbrokers = \"b:1\"\n[[route]]\ntopic = \"a\"\nplugin = \"p\"\n\
                    [[route]]\ntopic = \"b\"\nplugin = \"q\"\ndead-letters = \"a.dlq\"\n[[route]]\ntopic = \"c\"\nplugin = \"p\"\n";
        crate::config::parse(file, "pawl.toml", Path::new("."), |_| None).unwrap().routes
    }

    #[test]
    fn the_topics_of_the_routes_each_once() {
        assert_eq!(topics(&routes(), None).unwrap(), ["a.dlq", "c.dlq"]);
        assert_eq!(topics(&routes(), Some("c")).unwrap(), ["c.dlq"]);
        let unknown = topics(&routes(), Some("d")).unwrap_err().to_string();
        assert!(unknown.contains("`d`") && unknown.contains("a, b, c"), "{unknown}");
        assert!(topics(&[], None).unwrap_err().to_string().contains("--topic"));
    }

    #[test]
    fn a_plugin_is_told_by_its_name_or_its_digest() {
        let of = |plugin: &str| of_plugin(plugin.to_owned(), &routes());
        assert_eq!(of("p").unwrap(), OfPlugin::Routes(vec!["a".into(), "c".into()]));
        assert_eq!(of("0aF").unwrap(), OfPlugin::Digest("0af".into()));
        for wrong in ["", "x", "0x1", &"a".repeat(65)] {
            assert!(of(wrong).unwrap_err().to_string().contains("p, q"), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert_eq!(since("1970-01-02T00:00:00Z"), Ok(86_400_000));
        assert_eq!(since("1970-01-02 00:00:00"), Ok(86_400_000));
        let (ago, now) = (since("2h").unwrap(), since("0s").unwrap());
        assert!((7_000_000..7_300_000).contains(&(now - ago)));
        assert_eq!(since("1000000000y").unwrap_or(0), 0);
        for wrong in ["", "2", "yesterday", "2h ago"] {
            assert!(since(wrong).unwrap_err().contains("2h"), "{wrong}");
        }
    }

    #[test]
    fn a_letter_is_one_line_whatever_is_in_it() {
        let header = |name: &str, value: &str| Header { name: name.into(), value: Some(Bytes(value.into())) };
        let message = |timestamp, headers| {
            let (key, value) = (None, None);
            Letter::new(Message { topic: "d".into(), partition: 0, offset: 3, timestamp, key, value, headers })
        };
        let headers = vec![
            header("pawl-reason", "a\tb\n\u{1b}[31mc"),
            header("pawl-workflow", "r/x"),
            header("pawl-attempts", "2"),
        ];
        assert_eq!(
            line(&message(Some(0), headers), true),
            "d/0/3\t1970-01-01T00:00:00.000Z\tr/x\t2\treplayed\ta b  [31mc"
        );
        assert_eq!(line(&message(None, vec![]), false), "d/0/3\t-\t-\t-\t-\t-");
        assert!(line(&message(Some(u64::MAX), vec![]), false).contains(&u64::MAX.to_string()));
    }
}
