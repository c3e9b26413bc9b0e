//! Holds the tables of `README.md`, the normative description of the format, against the code.

use std::collections::BTreeMap;

use crate::checkpoint::Header;
use crate::format::{BatchHeader, RecordHeader, SegmentHeader};
use crate::ids::{Addr, Lsn, QueueId, Seq};
use crate::index_file::encode_page;
use crate::queue_log::QueueLog;
use crate::record::{Release, SettledRun, Source, encode_target};

const README: &str = include_str!("../README.md");

/// The rows of the table under `heading`: offset, bytes and the first word of the field.
fn table(heading: &str) -> Vec<(usize, usize, String)> {
    let start = README.find(&format!("### {heading}\n")).expect("the README has the heading");
    let lines = README[start..].lines().skip(3);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .map(|cells| {
            let field = cells[3].split(':').next().unwrap_or_default();
            let parse = |cell: &str| cell.parse().expect("a number");
            (parse(cells[1]), parse(cells[2]), field.to_owned())
        })
        .collect()
}

/// Goal: every field is where the README says, none is missing, and all else is zero.
fn check(heading: &str, bytes: &[u8], fields: &[(&str, &[u8])]) {
    let mut fields: BTreeMap<&str, &[u8]> = fields.iter().copied().collect();
    let mut rest = bytes.to_vec();
    for (offset, len, field) in table(heading) {
        let there = &bytes[offset..offset + len];
        let zero = field.ends_with("features");
        let expected = fields.remove(field.as_str());
        if zero {
            assert!(there.iter().all(|byte| *byte == 0), "{heading}: {field}");
        } else if !field.starts_with("crc") && !field.starts_with("body crc") {
            let expected = expected.unwrap_or_else(|| panic!("{heading} has no {field}"));
            assert_eq!(there, expected, "{heading}: {field} at {offset}");
        }
        rest[offset..offset + len].fill(0);
    }
    assert!(fields.is_empty(), "{heading}: not in the README: {:?}", fields.keys());
    assert!(rest.iter().all(|byte| *byte == 0), "{heading}: bytes that no row names");
}

#[test]
fn headers_are_as_the_readme_says() {
    let segment = SegmentHeader { store: 7, segment: 42, size: 1 << 26, salt: 9, epoch: 3 };
    check(
        "Segment header",
        &segment.encode(),
        &[
            ("magic `LVRTSEG1`", b"LVRTSEG1"),
            ("major", &[1, 0]),
            ("minor", &[0, 0]),
            ("store", &7_u128.to_le_bytes()),
            ("segment", &42_u64.to_le_bytes()),
            ("size of the file in bytes", &(1_u64 << 26).to_le_bytes()),
            ("salt", &9_u64.to_le_bytes()),
            ("epoch", &3_u64.to_le_bytes()),
        ],
    );
    let batch = BatchHeader {
        len: 8192,
        used: 4200,
        lsn: Lsn(1),
        sequence: 2,
        epoch: 3,
        durable: Lsn(4),
        previous: Lsn(5),
        records: 6,
        salt: 7,
    };
    check(
        "Batch header",
        &batch.encode(),
        &[
            ("magic `LvBt`", b"LvBt"),
            ("len", &8192_u32.to_le_bytes()),
            ("used", &4200_u32.to_le_bytes()),
            ("lsn", &1_u64.to_le_bytes()),
            ("sequence", &2_u64.to_le_bytes()),
            ("epoch", &3_u64.to_le_bytes()),
            ("durable", &4_u64.to_le_bytes()),
            ("previous", &5_u64.to_le_bytes()),
            ("records", &6_u32.to_le_bytes()),
            ("salt", &7_u32.to_le_bytes()),
        ],
    );
    check(
        "Record header",
        &RecordHeader { len: 5, lsn: Lsn(6), kind: 7, argument: 8 }.encode(),
        &[
            ("len", &5_u32.to_le_bytes()),
            ("lsn", &6_u64.to_le_bytes()),
            ("kind", &[7]),
            ("argument", &8_u32.to_le_bytes()),
        ],
    );
}

#[test]
fn payloads_are_as_the_readme_says() {
    let mut bytes = Vec::new();
    encode_target(&mut bytes, QueueId(1), Seq(2));
    check("Target", &bytes, &[("queue", &1_u32.to_le_bytes()), ("seq", &2_u64.to_le_bytes())]);
    bytes.clear();
    Source { queue: QueueId(1), len: 2, seq: Seq(3), segment: 4, charge: 5 }.encode(&mut bytes);
    check(
        "Source",
        &bytes,
        &[
            ("queue", &1_u32.to_le_bytes()),
            ("len", &2_u32.to_le_bytes()),
            ("seq", &3_u64.to_le_bytes()),
            ("segment it lived in", &4_u64.to_le_bytes()),
            ("charge", &5_u64.to_le_bytes()),
        ],
    );
    bytes.clear();
    let (queue, first, delivered) = (QueueId(1), Seq(3), Seq(4));
    SettledRun { queue, count: 2, first, delivered, bytes: 5, holes: 6 }.encode(&mut bytes);
    check(
        "Settled run",
        &bytes,
        &[
            ("queue", &1_u32.to_le_bytes()),
            ("count", &2_u32.to_le_bytes()),
            ("first place", &3_u64.to_le_bytes()),
            ("delivered", &4_u64.to_le_bytes()),
            ("bytes of the messages", &5_u64.to_le_bytes()),
            ("holes", &6_u32.to_le_bytes()),
        ],
    );
    bytes.clear();
    Release { segment: 1, references: 2, bytes: 3 }.encode(&mut bytes);
    check(
        "Release",
        &bytes,
        &[
            ("segment", &1_u64.to_le_bytes()),
            ("references it gives back", &2_u64.to_le_bytes()),
            ("bytes they stood for", &3_u64.to_le_bytes()),
        ],
    );
}

#[test]
fn checkpoints_are_as_the_readme_says() {
    let header = Header {
        store: 1,
        number: 2,
        start: Lsn(3),
        sequence: 4,
        durable: Lsn(5),
        epoch: 6,
        next_group: 7,
        segment_size: 8,
        body_size: 9,
        body_crc: 10,
    };
    check(
        "Checkpoint header",
        &header.encode(),
        &[
            ("magic `LVRTCKP1`", b"LVRTCKP1"),
            ("major", &[1, 0]),
            ("minor", &[0, 0]),
            ("body crc", &10_u32.to_le_bytes()),
            ("store", &1_u128.to_le_bytes()),
            ("number", &2_u64.to_le_bytes()),
            ("start", &3_u64.to_le_bytes()),
            ("sequence of the batch behind", &4_u64.to_le_bytes()),
            ("durable", &5_u64.to_le_bytes()),
            ("epoch", &6_u64.to_le_bytes()),
            ("next group", &7_u64.to_le_bytes()),
            ("segment size", &8_u64.to_le_bytes()),
            ("body size in bytes", &9_u64.to_le_bytes()),
        ],
    );
    let mut log = QueueLog::new(true);
    for i in 0..130 {
        log.push(Addr::durable(Lsn(i + 1), 1), 10);
    }
    let (number, _) = log.fill_page().expect("more than a page is in it");
    log.push_page(number, crate::index_file::PageId(77));
    log.note_delivered(Seq(5));
    log.set_dying();
    let mut bytes = Vec::new();
    log.encode(&mut bytes);
    check(
        "Queue image",
        &bytes[..64],
        &[
            ("dying", &1_u32.to_le_bytes()),
            ("pages", &1_u32.to_le_bytes()),
            ("patches", &0_u32.to_le_bytes()),
            ("tail", &130_u64.to_le_bytes()),
            ("delivered", &5_u64.to_le_bytes()),
            ("messages", &130_u64.to_le_bytes()),
            ("bytes", &1300_u64.to_le_bytes()),
            ("base", &124_u64.to_le_bytes()),
            ("first page", &0_u64.to_le_bytes()),
        ],
    );
    assert_eq!(bytes.len(), 64 + 16 + 8 + 6 * 8, "settled set, page ids, addresses");
    let addrs: Vec<Addr> = (0..124).map(|i| Addr::durable(Lsn(i), 1)).collect();
    let listed: Vec<u8> = (0..124_u64).flat_map(u64::to_le_bytes).collect();
    check(
        "Index page",
        &encode_page(QueueId(1), 2, 3, &addrs),
        &[
            ("queue", &1_u32.to_le_bytes()),
            ("number", &2_u64.to_le_bytes()),
            ("epoch", &3_u64.to_le_bytes()),
            ("addresses", &listed),
        ],
    );
}
