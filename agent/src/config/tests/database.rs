//! The database: what is said about it, and the words of the errors.

use super::{errors::check, *};

const SECTION: &str = "[database]\nfile = \"shop.db\"\n";

/// The example with this `[database]` and these keys in `[resources.orders]`.
fn with_database(database: &str, orders: &str) -> String {
    let section = format!("{SECTION}{database}\n[dataplane]");
    with("[dataplane]", &section).replace("[resources.orders]\n", &format!("[resources.orders]\n{orders}\n"))
}

fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

#[test]
fn all_tables_are_kept_the_same_by_the_default_rules_unless_told_otherwise() {
    let config = read(&with_database("", ""));
    let default = TableRules {
        granularity: Granularity::Column,
        conflicts: Conflicts::Latest,
        unique: Unique::Null,
        fire_triggers: false,
        columns: BTreeMap::new(),
    };
    let database = config.database.unwrap();
    let expected = Database {
        file: "/etc/siteswap/shop.db".into(),
        tables: Tables::All,
        rules: BTreeMap::new(),
        max_backlog: 10_000_000_000,
        max_skew: Duration::from_secs(10),
    };
    assert_eq!(database, expected);
    assert!(database.tables.contain(&table("anything")));
    assert_eq!(database.rules_of(&table("anything")), default);
}

#[test]
fn everything_about_the_database_can_be_said() {
    let config = read(&with_database(
        r#"tables = ["Orders", "order_items", "we\"ird t", "a.b"]
max_backlog = "500 MB"
max_skew = "1m"
[database.table.orders]
granularity = "row"
conflicts = "delete"
unique = "suffix"
fire_triggers = true
counters = ["Stock", "sold"]
min = ["first seen"]
max = ["last"]
[database.table."we\"ird t"]
conflicts = "update""#,
        "tables = [\"ORDERS\", \"order_items\"]\nstandby_writes = \"refuse\"",
    ));
    let database = config.database.unwrap();
    assert_eq!((database.max_backlog, database.max_skew), (500_000_000, Duration::from_secs(60)));
    let columns = [
        ("stock", ColumnRule::Counter),
        ("sold", ColumnRule::Counter),
        ("first seen", ColumnRule::Min),
        ("last", ColumnRule::Max),
    ];
    let orders = TableRules {
        granularity: Granularity::Row,
        conflicts: Conflicts::Delete,
        unique: Unique::Suffix,
        fire_triggers: true,
        columns: columns.map(|(name, rule)| (name.to_owned(), rule)).into(),
    };
    assert_eq!(database.rules_of(&table("orders")), orders);
    let weird = TableRules { conflicts: Conflicts::Update, ..TableRules::default() };
    assert_eq!(database.rules_of(&table("WE\"IRD T")), weird);
    assert_eq!(database.rules_of(&table("a.b")), TableRules::default());
    assert!(database.tables.contain(&table("A.B")) && !database.tables.contain(&table("customers")));
    let orders = &config.resources["orders"];
    assert_eq!(orders.tables, [table("orders"), table("order_items")]);
    assert_eq!(orders.standby_writes, StandbyWrites::Refuse);
}

/// In the example with a database and these keys of the resource, this is said.
#[track_caller]
fn complaints(cases: &[(&str, &str, &str)]) {
    for (database, orders, expected) in cases {
        let error = parse(&with_database(database, orders), Path::new("east.toml")).unwrap_err().to_string();
        assert_eq!(error, *expected, "{database:?} {orders:?}");
    }
}

#[test]
fn a_database_is_a_file_and_its_tables() {
    check(&[
        (
            "[dataplane]",
            "[database]\n[dataplane]",
            r#"east.toml:22:1: database.file: missing; write file = "FILE.db", the SQLite database that the application at this site writes"#,
        ),
        (
            "[agent]\n",
            "database = \"shop.db\"\n[agent]\n",
            r#"east.toml:1:12: database: found the string "shop.db", expected a section [database]"#,
        ),
    ]);
    complaints(&[
        (
            "tables = []",
            "tables = [\"orders\"]",
            r#"east.toml:24:10: database.tables: empty; write tables = "all", or tables = ["TABLE"] with those that are kept the same"#,
        ),
        (
            "tables = \"orders\"",
            "",
            r#"east.toml:24:10: database.tables: found the string "orders"; write tables = "all", or tables = ["TABLE"] with those that are kept the same"#,
        ),
        (
            "tables = [\"orders\", \"ORDERS\"]",
            "",
            r#"east.toml:24:21: database.tables: "ORDERS" is given twice; keep one of them"#,
        ),
        ("tables = [\"orders\", \"\"]", "", r#"east.toml:24:21: database.tables: "" names no table"#),
        (
            "tables = [\"a\\u0000b\"]",
            "",
            r#"east.toml:24:11: database.tables: "a\0b" holds a NUL, which no table's name does"#,
        ),
        (
            "tables = [\"SQLite_stat1\"]",
            "",
            r#"east.toml:24:11: database.tables: "SQLite_stat1" begins with "sqlite_", as only tables of SQLite and siteswap do"#,
        ),
        (
            "[database.tables.orders]",
            "",
            r#"east.toml:24:11: database.tables: found a table; the rules of a table are in a section [database.table.NAME]"#,
        ),
    ]);
}

#[test]
fn sizes_and_times_of_the_database_are_within_bounds() {
    complaints(&[
        (
            "max_backlog = 1000000000",
            "",
            r#"east.toml:24:15: database.max_backlog: found the number 1000000000; write a whole number and its unit, like "10 GB" or "500 MB""#,
        ),
        (
            "max_backlog = \"10 GiB\"",
            "",
            r#"east.toml:24:15: database.max_backlog: "10 GiB" is not a size; write a whole number and its unit, like "10 GB" or "500 MB""#,
        ),
        (
            "max_backlog = \"999 kB\"",
            "",
            r#"east.toml:24:15: database.max_backlog: "999 kB" is out of bounds; at least 1 MB and at most 1000 TB"#,
        ),
        (
            "max_skew = \"0s\"",
            "",
            r#"east.toml:24:12: database.max_skew: "0s" is out of bounds; at least 100ms and at most 1h"#,
        ),
    ]);
}

#[test]
fn a_tables_rules_are_words_and_belong_to_a_table_that_is_kept() {
    complaints(&[
        (
            "[database.table.orders]\ngranularity = \"cell\"",
            "",
            r#"east.toml:25:15: database.table.orders.granularity: "cell" is none of "column", "row""#,
        ),
        (
            "[database.table.orders]\nconflicts = \"updates\"",
            "",
            r#"east.toml:25:13: database.table.orders.conflicts: "updates" is none of "latest", "delete", "update"; did you mean "update"?"#,
        ),
        (
            "[database.table.orders]\nunique = \"drop\"",
            "",
            r#"east.toml:25:10: database.table.orders.unique: "drop" is none of "null", "suffix", "delete""#,
        ),
        (
            "[database.table.orders]\npolicy = \"row\"",
            "",
            "east.toml:25:1: database.table.orders.policy: no such key; known here: granularity, conflicts, unique, counters, min, max, fire_triggers",
        ),
        (
            "tables = [\"customers\"]\n[database.table.orders]",
            "",
            "east.toml:25:17: database.table.orders: not among database.tables; list it there too",
        ),
        (
            "[database.table._ssw_change]",
            "",
            r#"east.toml:24:17: database.table._ssw_change: "_ssw_change" begins with "_ssw_", as only tables of SQLite and siteswap do"#,
        ),
        (
            "[database.table.orders]\n[database.table.Orders]",
            "",
            "east.toml:24:17: database.table.orders: given twice, in letters of another case; keep one of them",
        ),
    ]);
}

#[test]
fn columns_with_a_rule_of_their_own_have_names_and_one_rule() {
    complaints(&[
        (
            "[database.table.orders]\ncounters = \"stock\"",
            "",
            r#"east.toml:25:12: database.table.orders.counters: found the string "stock", expected a list, in [ ]"#,
        ),
        (
            "[database.table.orders]\ncounters = [\"stock\", \"STOCK\"]",
            "",
            r#"east.toml:25:22: database.table.orders.counters: "STOCK" is given twice; keep one of them"#,
        ),
        (
            "[database.table.orders]\ncounters = [\"stock\"]\nmax = [\"Stock\"]",
            "",
            r#"east.toml:26:8: database.table.orders.max: "Stock" is among counters already; a column has one rule"#,
        ),
        (
            "[database.table.orders]\nmin = [\"\"]",
            "",
            r#"east.toml:25:8: database.table.orders.min: "" names no column"#,
        ),
        (
            "[database.table.orders]\nmin = [\"a\\u0000\"]",
            "",
            r#"east.toml:25:8: database.table.orders.min: "a\0" holds a NUL, which no column's name does"#,
        ),
    ]);
}

#[test]
fn a_table_belongs_to_one_resource_and_is_kept_the_same() {
    check(&[
        (
            "[resources.orders]\n",
            "[resources.orders]\ntables = [\"orders\", \"order_items\"]\n",
            r#"east.toml:42:11: resources.orders.tables: there is no database; add a section [database] with file = "FILE.db""#,
        ),
        (
            "[resources.orders]\n",
            "[resources.orders]\nstandby_writes = \"refuse\"\n",
            r#"east.toml:42:18: resources.orders.standby_writes: the resource has no tables to write to; list them: tables = ["TABLE"]"#,
        ),
    ]);
    complaints(&[
        (
            "tables = [\"orders\"]",
            "tables = [\"Orders\", \"order_items\"]",
            r#"east.toml:45:21: resources.orders.tables: "order_items" is not among database.tables; list it there too"#,
        ),
        (
            "",
            "tables = [\"orders\", \"Orders\"]",
            r#"east.toml:45:21: resources.orders.tables: "Orders" is given twice; keep one of them"#,
        ),
        (
            "",
            "tables = [\"orders\"]\nstandby_writes = \"deny\"",
            r#"east.toml:46:18: resources.orders.standby_writes: "deny" is none of "allow", "refuse""#,
        ),
    ]);
    let both = with_database("", "tables = [\"ORDERS\"]")
        .replace("[resources.www]\n", "[resources.www]\ntables = [\"orders\"]\n");
    let error = parse(&both, Path::new("east.toml")).unwrap_err().to_string();
    assert_eq!(error, r#"east.toml:46:11: resources.orders.tables: "ORDERS" belongs to the resource "www" already"#);
}
