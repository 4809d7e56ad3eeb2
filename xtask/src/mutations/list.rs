//! What is taken out of the replication, and which tests must notice. Triggers are not here: the crate's own tests drop and
//! weaken each of them in every ordinary run (`replication/tests/capture_mutations.rs`).

use std::fmt;

/// A part that is taken out.
#[derive(Debug)]
pub struct Mutation {
    pub name: &'static str,
    /// What is missing then.
    pub without: &'static str,
    pub edits: &'static [Edit],
    pub noticed_by: Test,
}

/// In this file of the crate, one text in place of another that is there once.
#[derive(Debug)]
pub struct Edit {
    pub file: &'static str,
    pub find: &'static str,
    pub put: &'static str,
}

/// Tests of one target with names that begin or go on like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    pub target: &'static str,
    pub name: &'static str,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}…", self.target, self.name)
    }
}

const fn edit(file: &'static str, find: &'static str, put: &'static str) -> Edit {
    Edit { file, find, put }
}

const fn converge(name: &'static str) -> Test {
    Test { target: "convergence", name }
}

const fn workload(name: &'static str) -> Test {
    Test { target: "workloads", name }
}

const fn backlog(name: &'static str) -> Test {
    Test { target: "backlog", name }
}

const fn added(name: &'static str) -> Test {
    Test { target: "added_columns", name }
}

const fn constraints(name: &'static str) -> Test {
    Test { target: "constraints", name }
}

const fn counters(name: &'static str) -> Test {
    Test { target: "counters", name }
}

const THREE: Test = converge("c4_three_sites");
const LINKED: Test = converge("c4_unique_columns");

pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "gap-check",
        without: "the check that nothing between the last batch and this one is missing",
        edits: &[edit("src/store/apply.rs", "if part.lo != applied {", "if part.lo < applied {")],
        noticed_by: workload("append_every"),
    },
    Mutation {
        name: "duplicate-check",
        without: "the refusal of batches that were applied before",
        edits: &[
            edit("src/store/apply.rs", "if part.hi <= applied {", "if false {"),
            edit("src/store/apply.rs", "if part.lo != applied {", "if part.lo > applied {"),
            edit("src/store/apply.rs", "peer.applied = last.hi;", "peer.applied = peer.applied.max(last.hi);"),
        ],
        noticed_by: THREE,
    },
    Mutation {
        name: "part-order",
        without: "the check that no part of a large batch is missing",
        edits: &[edit("src/store/apply.rs", "if found.is_none() {", "if false {")],
        noticed_by: workload("a_transaction_larger"),
    },
    Mutation {
        name: "parts-together",
        without: "the wait for all parts of a large batch before any is applied",
        edits: &[edit(
            "src/store/apply.rs",
            "if part.last { apply(work, part, &kept(work, part)?, now) } else { Ok(Received::Kept) }",
            "if part.last {
                return apply(work, part, &kept(work, part)?, now);
            }
            join_part(work, part, &mut Found::default())?;
            Ok(Received::Kept)",
        )],
        noticed_by: workload("a_transaction_larger"),
    },
    Mutation {
        name: "one-transaction",
        without: "the one transaction around all rows of a batch",
        edits: &[edit(
            "src/store/apply.rs",
            "found.rows += 1;",
            "found.rows += 1;
            work.transaction.execute_batch(\"COMMIT; BEGIN IMMEDIATE\")?;",
        )],
        noticed_by: workload("every_site_reads"),
    },
    Mutation {
        name: "clock-merge",
        without: "the merging of other sites' clocks",
        edits: &[
            edit("src/store/apply.rs", "work.state.clock.pass(last.clock);", ""),
            edit("src/store/acknowledge.rs", "state.clock.pass(report.clock);", ""),
        ],
        noticed_by: workload("register_with_wrong_clocks"),
    },
    Mutation {
        name: "clock-forward",
        without: "the rule that a stamp is above the one before, whatever the clock shows",
        edits: &[edit(
            "src/store/fold.rs",
            "let stamp = follows.max(stamp(ms.min(latest)));",
            "let stamp = stamp(ms.min(latest));",
        )],
        noticed_by: workload("register_with_wrong_clocks"),
    },
    Mutation {
        name: "fold-before-apply",
        without: "the fold before a batch is applied",
        edits: &[edit("src/store/apply.rs", "fold::fold(work, now)?;", "")],
        noticed_by: workload("register_with_wrong_clocks"),
    },
    Mutation {
        name: "newest-touch",
        without: "the newest touch, which keeps SQLite from counting anew",
        edits: &[edit("src/store/fold.rs", "VALUES(?, 0)", "SELECT ?, 0 WHERE 0")],
        noticed_by: workload("set"),
    },
    Mutation {
        name: "silent-apply",
        without: "the switch that keeps what is applied from being captured again",
        edits: &[edit(
            "src/store/mod.rs",
            "DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false",
            "DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true",
        )],
        noticed_by: workload("register_the_last_writer"),
    },
    Mutation {
        name: "greater-version",
        without: "the comparison of versions: what comes last stays",
        edits: &[edit("src/merge.rs", "if theirs > *mine {", "if theirs != *mine {")],
        noticed_by: THREE,
    },
    Mutation {
        name: "newest-deletion",
        without: "the maximum of deletions: what comes last counts",
        edits: &[edit("src/merge.rs", "self.dead = self.dead.max(ends);", "self.dead = ends;")],
        noticed_by: THREE,
    },
    Mutation {
        name: "consolidation",
        without: "the preference for the newer of two changes that are combined",
        edits: &[edit("src/change.rs", "max_by_key(|cell| cell.stamp)", "min_by_key(|cell| cell.stamp)")],
        noticed_by: THREE,
    },
    Mutation {
        name: "first-identity",
        without: "the rule that of two connections the first gives a new database its identity",
        edits: &[edit("src/store/identity.rs", "\"INSERT OR IGNORE\"", "\"INSERT OR REPLACE\"")],
        noticed_by: Test { target: "identity", name: "connections_that_open" },
    },
    Mutation {
        name: "tombstone-image",
        without: "the values of deleted rows in what is kept of them",
        edits: &[edit(
            "src/merge.rs",
            "values: (!self.visible()).then(|| Cow::from(&self.values)),",
            "values: (!self.visible()).then(|| Cow::from(vec![None; self.values.len()])),",
        )],
        noticed_by: THREE,
    },
    Mutation {
        name: "deletion-image",
        without: "the values that triggers keep of deleted rows",
        edits: &[edit("src/store/live.rs", "{there}, {there} OR o.seq NOT NULL, {}", "{there}, {there}, {}")],
        noticed_by: THREE,
    },
    Mutation {
        name: "eviction-image",
        without: "the values that triggers keep of rows that a REPLACE evicts",
        edits: &[edit("src/capture/triggers.rs", "{image} {rows}; ", "{image} {rows} AND 0; ")],
        noticed_by: converge("c4_rows_driven_out"),
    },
    Mutation {
        name: "last-touch",
        without: "the rule that a row is gone after its last touch, whatever that says",
        edits: &[edit(
            "src/store/touched.rs",
            "let stamp = self.newest;",
            "let stamp = self.deleted.unwrap_or(self.newest);",
        )],
        noticed_by: constraints("trigger_of_the_applications"),
    },
    Mutation {
        name: "conflict-clauses",
        without: "the rule that the schema's ON CONFLICT does not act where changes are applied",
        edits: &[edit("src/store/live.rs", "{ \" OR ABORT\" }", "{ \"\" }")],
        noticed_by: constraints("on_conflict"),
    },
    Mutation {
        name: "contested",
        without: "the memory of claims to unique values that older ones may still contest",
        edits: &[edit("src/store/work.rs", " && !self.may_be_contested(live, row)", "")],
        noticed_by: constraints("decides_the_same"),
    },
    Mutation {
        name: "put-back",
        without: "the rows whose deletion the source of a copy had not folded yet",
        edits: &[edit("src/store/join.rs", "put_back(transaction, before.folded)?", "true")],
        noticed_by: converge("just_before_a_site_joined"),
    },
    Mutation {
        name: "collection-seen",
        without: "the wait for every site before versions are dropped",
        edits: &[edit("src/store/work.rs", "pairs.min()", "pairs.max()")],
        noticed_by: THREE,
    },
    Mutation {
        name: "collection-order",
        without: "the wait for a site's changes before what it says of its clock is believed",
        edits: &[edit("src/store/acknowledge.rs", "if report.group <= peer.applied && ", "if ")],
        noticed_by: THREE,
    },
    Mutation {
        name: "kept-for-all",
        without: "the wait for every site's acknowledgement before changes are dropped",
        edits: &[edit(
            "src/store/acknowledge.rs",
            ".map(|peer| peer.acknowledged).min()",
            ".map(|peer| peer.acknowledged).max()",
        )],
        noticed_by: THREE,
    },
    Mutation {
        name: "told-groups",
        without: "the rule that groups which a peer may have are not put together with others",
        edits: &[edit("src/store/backlog.rs", "|| self.told < run.first", "|| true")],
        noticed_by: backlog("what_a_peer_has_been_told"),
    },
    Mutation {
        name: "part-of-groups",
        without: "the refusal to go on in the middle of groups that were put together",
        edits: &[
            edit("src/store/batch.rs", "None if first <= position.group && rows > 0 => {", "None if false => {"),
            edit("src/store/acknowledge.rs", ".max(part.unwrap_or(0))", ".max(part.unwrap_or(0) * 0)"),
        ],
        noticed_by: backlog("a_site_that_begins_anew"),
    },
    Mutation {
        name: "sight-by-stamp",
        without: "what the maker of each change had seen then: it counts as made when the first of those combined was",
        edits: &[edit("src/merge.rs", "sight.at(cell.stamp)", "sight.at(0)")],
        noticed_by: backlog("of_changes_that_are_combined"),
    },
    Mutation {
        name: "missed-groups",
        without: "the comparison with a peer that has forgotten changes",
        edits: &[edit("src/store/acknowledge.rs", "state.missed.insert(report.site, report.forgotten);", "")],
        noticed_by: backlog("what_is_too_much"),
    },
    Mutation {
        name: "forgotten-values",
        without: "the comparison with who has changed a row whose values are forgotten here",
        edits: &[edit("src/store/apply.rs", "work.state.incomplete.insert(part.origin, part.hi);", "")],
        noticed_by: backlog("what_deleted_rows_were"),
    },
    Mutation {
        name: "forgotten-deletions",
        without: "telling others that it was forgotten what was deleted",
        edits: &[edit("src/store/backlog.rs", "work.state.forgot = work.state.clock.0;", "")],
        noticed_by: backlog("at_last_it"),
    },
    Mutation {
        name: "forgotten-at-both",
        without: "asking whether the peer lacks something too",
        edits: &[edit("src/verify.rs", "if one.0.withholds || two.0.lacks =>", "if false =>")],
        noticed_by: backlog("sites_that_have_forgotten"),
    },
    Mutation {
        name: "missed-past",
        without: "knowing that what several peers have forgotten is on its way no more",
        edits: &[edit("src/store/scan.rs", "state.missed.keys().for_each(|site| past.pass(*site, Stamp::MAX));", "")],
        noticed_by: backlog("a_site_that_begins_anew"),
    },
    Mutation {
        name: "conflict-log",
        without: "the log of what lost",
        edits: &[edit("src/store/apply.rs", "conflicts::log(work, &live, &key, conflict)?;", "let _ = conflict;")],
        noticed_by: workload("append_to_one_value"),
    },
    Mutation {
        name: "notices",
        without: "telling the other sites what lost",
        edits: &[edit(
            "src/store/conflicts.rs",
            "if take(work.transaction, &notice)? { work.tell(&notice) } else { Ok(()) }",
            "take(work.transaction, &notice).map(drop)",
        )],
        noticed_by: THREE,
    },
    Mutation {
        name: "conflict-seen",
        without: "what a change's maker had seen: everything is a conflict",
        edits: &[edit("src/clock.rs", " || version.stamp <= self.of(version.site)", "")],
        noticed_by: workload("register_written_at_one_site"),
    },
    Mutation {
        name: "rows-as-a-whole",
        without: "the rule that a row's columns change together, where it is decided as a whole",
        edits: &[edit("src/store/touched.rs", "return u64::MAX;", "return mask;")],
        noticed_by: workload("register_decided_as_a_whole"),
    },
    Mutation {
        name: "deletions-win",
        without: "the rule that an edit is no sign of life, where deletions win",
        edits: &[edit(
            "src/store/touched.rs",
            "Deletes::Win => self.inserted,",
            "Deletes::Win => self.inserted.max(edited),",
        )],
        noticed_by: workload("register_where_deletions_win"),
    },
    Mutation {
        name: "edits-win",
        without: "the rule that a deletion ends only what its maker knew, where edits win",
        edits: &[edit(
            "src/store/touched.rs",
            "Deletes::Lose => alive.map_or(known_alive, |alive| known_alive.max(Version::new(alive, site))),",
            "Deletes::Lose => Version::new(stamp, site),",
        )],
        noticed_by: workload("register_where_edits_win"),
    },
    Mutation {
        name: "unique",
        without: "the decision between two rows with one unique value",
        edits: &[edit(
            "src/store/apply.rs",
            "let mut checks = repair::collisions(work, &mut found, now)?;",
            "let mut checks = repair::Checks::new();",
        )],
        noticed_by: LINKED,
    },
    Mutation {
        name: "foreign-keys",
        without: "the look at foreign keys after a batch",
        edits: &[edit("src/store/apply.rs", "repair::references(work, last, &mut found, now)?;", "")],
        noticed_by: LINKED,
    },
    Mutation {
        name: "restored-by-file",
        without: "the file beside the database that tells a restored backup",
        edits: &[
            edit("src/store/identity.rs", "&& noted.group <= state.group", ""),
            edit("src/store/identity.rs", "&& noted.clock <= state.clock.0 =>", "=>"),
        ],
        noticed_by: converge("a_restored_backup"),
    },
    Mutation {
        name: "restored-by-peers",
        without: "what peers tell a restored backup of itself",
        edits: &[edit(
            "src/store/acknowledge.rs",
            "if behind || report.acknowledged > peer.applied && !known {",
            "if false {",
        )],
        noticed_by: converge("a_backup_restored_with"),
    },
    Mutation {
        name: "restored-partial",
        without: "a restored backup's question about rows of which it has heard in part",
        edits: &[edit("src/store/verify.rs", "self.suspect_partial(store)\n", "Ok(())\n")],
        noticed_by: converge("a_restored_backup_hears"),
    },
    Mutation {
        name: "parked-values",
        without: "the values of columns that a site does not have yet",
        edits: &[edit(
            "src/store/apply.rs",
            "parked.into_iter().for_each(|parked| row.park(parked));",
            "drop(parked);",
        )],
        noticed_by: added("values_of_a_column"),
    },
    Mutation {
        name: "parked-rows",
        without: "keeping rows until parked values have their column",
        edits: &[edit("src/store/rows.rs", "true if !row.parked.is_empty() => PARKED,", "true if false => PARKED,")],
        noticed_by: added("values_of_a_column_that_a_site_lacks"),
    },
    Mutation {
        name: "parked-taken-up",
        without: "folding what was written to a column before parked values come into it",
        edits: &[edit(
            "src/store/fold.rs",
            "let folded = fold_touches(work, now, tell)?;\n    parked::take_up(work, now)?;\n    Ok(folded)",
            "parked::take_up(work, now)?;\n    fold_touches(work, now, tell)",
        )],
        noticed_by: added("values_of_a_column"),
    },
    Mutation {
        name: "sweep",
        without: "looking further for settled rows when nothing new is heard",
        edits: &[edit("src/store/acknowledge.rs", "if new || self.sweep.is_under_way() {", "if new {")],
        noticed_by: backlog("of_rows_that_every_site_has"),
    },
    Mutation {
        name: "otherwise-unique",
        without: "looking who is in the way for an index that is not described",
        edits: &[edit("src/store/repair.rs", "if live.table.otherwise_unique.is_none() {", "if true {")],
        noticed_by: Test { target: "constraints", name: "unique_by_an_expression" },
    },
    Mutation {
        name: "key-collation",
        without: "comparing keys as their index does",
        edits: &[edit(
            "src/schema/mod.rs",
            "quoted(found.map_or(\"BINARY\", |(_, collation)| collation))",
            "quoted(found.map_or(\"NOCASE\", |(_, collation)| collation))",
        )],
        noticed_by: Test { target: "keys", name: "rows_that_only" },
    },
    Mutation {
        name: "fired-touches",
        without: "the taking back of touches by triggers that fire for what a peer has told",
        edits: &[edit(
            "src/store/triggers.rs",
            "WHERE seq > ?\")?.execute([newest])?;\n    for",
            "WHERE seq < 0\")?.execute([])?;\n    for",
        )],
        noticed_by: Test { target: "triggers", name: "a_search_index" },
    },
    Mutation {
        name: "suffix-of-the-key",
        without: "the key in the suffix of a unique text's loser",
        edits: &[edit(
            "src/store/repair.rs",
            "blake3::hash(&key.0)",
            "blake3::hash(format!(\"{:p}\", &raw const *key).as_bytes())",
        )],
        noticed_by: constraints("with_suffix"),
    },
    Mutation {
        name: "counter-sum",
        without: "the sending of what was added to a counter in place of what it came to",
        edits: &[edit(
            "src/store/fold.rs",
            "if told { touched.adds(&row, site) } else",
            "if false { touched.adds(&row, site) } else",
        )],
        noticed_by: counters("what_two_and_three"),
    },
    Mutation {
        name: "counter-taken-off",
        without: "taking off, at a new site, what its source had not folded yet",
        edits: &[edit("src/store/join.rs", "take_off(transaction, &live.table, folded)?;", "")],
        noticed_by: counters("a_new_site_counts"),
    },
    Mutation {
        name: "counter-below",
        without: "the rule that what was added before a value was given is gone",
        edits: &[edit("src/merge/counter.rs", "is_none_or(|given| added.since() < *given)", "is_none_or(|_| false)")],
        noticed_by: converge("c4_what_two_sites_add"),
    },
    Mutation {
        name: "counter-overtaken",
        without: "the new making of triggers that count, where the application's come to be fired first",
        edits: &[edit("src/capture/inspect.rs", "!table.counters.is_empty() && is_overtaken", "false && is_overtaken")],
        noticed_by: counters("what_a_trigger_of_the_applications"),
    },
    Mutation {
        name: "counters-apart",
        without: "gathering what one site adds under few times",
        edits: &[edit("src/merge/counter.rs", "own.count() >= APART &&", "false &&")],
        noticed_by: counters("what_is_added_over_a_cut"),
    },
    Mutation {
        name: "extreme-replaced",
        without: "the memory of what a replaced value was in place of",
        edits: &[edit(
            "src/merge/extreme.rs",
            "contested.seen.join(seen);\n        contested.seen.pass(origin, stamp);",
            "contested.seen.pass(origin, stamp);",
        )],
        noticed_by: counters("what_somebody_replaced"),
    },
];
