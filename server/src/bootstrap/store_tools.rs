//! `leveret inspect` and `leveret verify`: a data directory looked at while no broker uses it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use leveret_engine::{Inspection, QueueId};
use leveret_protocol::field::{FieldTable, FieldValue};
use serde_json::{Value, json};

use super::{StartError, failed};
use crate::broker::store::{Kind, names};

/// Exit code of `verify` when something is damaged.
const EXIT_DAMAGED: u8 = 2;

/// Prints what a data directory holds.
pub(super) fn inspect(dir: &Path, as_json: bool) -> Result<ExitCode, StartError> {
    let seen = leveret_engine::inspect(dir).map_err(failed(format!("{}", dir.display())))?;
    let names = queue_names(&seen);
    if as_json {
        println!("{:#}", to_json(&seen, &names));
    } else {
        print(&seen, &names);
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads everything and prints what is damaged.
pub(super) fn verify(dir: &Path) -> Result<ExitCode, StartError> {
    let read = leveret_engine::verify(dir).map_err(failed(format!("{}", dir.display())))?;
    for damage in &read.damages {
        println!("{damage}");
    }
    println!(
        "{} segments, {} batches, {} records, {} bytes read; {} damaged",
        read.segments,
        read.batches,
        read.records,
        read.bytes,
        read.damages.len()
    );
    let sound = read.damages.is_empty();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGED) })
}

/// Virtual host and name of each engine queue that a definition names.
fn queue_names(seen: &Inspection) -> BTreeMap<QueueId, (String, String)> {
    let mut found = BTreeMap::new();
    for (key, value) in &seen.metas {
        if key.first() != Some(&(Kind::Queue as u8)) {
            continue;
        }
        let (Some(parts), Ok(value)) = (names(key), FieldTable::parse(value)) else { continue };
        let [vhost, name] = &parts[..] else { continue };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut logs: Vec<i64> =
            value.get("log").and_then(FieldValue::as_i64).into_iter().collect();
        if let Some(FieldValue::Array(levels)) = value.get("levels") {
            // Priority and engine queue by turns.
            logs.extend(levels.iter().filter_map(FieldValue::as_i64).skip(1).step_by(2));
        }
        for log in logs.into_iter().filter_map(|log| u32::try_from(log).ok()) {
            found.insert(QueueId(log), (text(vhost), text(name)));
        }
    }
    found
}

fn to_json(seen: &Inspection, names: &BTreeMap<QueueId, (String, String)>) -> Value {
    let segments = seen.segments.iter().map(|segment| {
        json!({
            "number": segment.number,
            "file": segment.path,
            "references": segment.references,
            "live_bytes": segment.live_bytes,
        })
    });
    let queues = seen.queues.iter().map(|queue| {
        let name = names.get(&queue.id);
        json!({
            "id": queue.id.0,
            "vhost": name.map(|(vhost, _)| vhost),
            "name": name.map(|(_, name)| name),
            "messages": queue.messages,
            "bytes": queue.bytes,
            "deleted": queue.dying,
        })
    });
    json!({
        "store": seen.store.map(|store| format!("{store:032x}")),
        "epoch": seen.epoch,
        "segment_size": seen.segment_size,
        "checkpoint": seen.checkpoint,
        "replayed_bytes": seen.replayed_bytes,
        "durable": seen.durable.0,
        "end": seen.end.0,
        "segments": segments.collect::<Vec<_>>(),
        "spare_segments": seen.spare_segments,
        "queues": queues.collect::<Vec<_>>(),
        "definitions": seen.metas.len(),
    })
}

fn print(seen: &Inspection, names: &BTreeMap<QueueId, (String, String)>) {
    match seen.store {
        Some(store) => println!("store {store:032x}, opened {} times", seen.epoch),
        None => println!("no log yet"),
    }
    match seen.checkpoint {
        Some(number) => println!("checkpoint {number}, {} bytes behind it", seen.replayed_bytes),
        None => println!("no checkpoint, {} bytes to replay", seen.replayed_bytes),
    }
    println!("durable up to {}, ends at {}", seen.durable.0, seen.end.0);
    println!("{} definitions", seen.metas.len());
    println!("\n{:>8} {:>12} {:>14}  file", "segment", "references", "live bytes");
    for segment in &seen.segments {
        println!(
            "{:>8} {:>12} {:>14}  {}",
            segment.number,
            segment.references,
            segment.live_bytes,
            segment.path.display()
        );
    }
    println!("{} spare", seen.spare_segments);
    println!("\n{:>8} {:>12} {:>14}  name", "queue", "messages", "bytes");
    for queue in &seen.queues {
        let name = match names.get(&queue.id) {
            Some((vhost, name)) => format!("{name} in {vhost}"),
            None if queue.dying => "(deleted, being emptied)".to_owned(),
            None => "(of no definition)".to_owned(),
        };
        println!("{:>8} {:>12} {:>14}  {name}", queue.id.0, queue.messages, queue.bytes);
    }
}
