//! Reading single values. The errors continue `NAME: `.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use hickory_proto::rr::{LowerName, Name};
use toml::de::DeValue;

use super::{Port, Protocol, TableName, nearest::did_you_mean};

/// A backend's share of the flows is at most this many times another's.
const MAX_WEIGHT: u32 = 1000;

/// Characters of a value that are repeated to its author.
const SHOWN: usize = 64;

/// `text` quoted, control characters escaped, cut to a length that fits a line.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What a value is, for people.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", shown(text)),
        DeValue::Integer(number) => format!("the number {}", cut(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", cut(number.as_str())),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn cut(number: &str) -> String {
    match number.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &number[..end]),
        None => number.to_owned(),
    }
}

/// A string.
pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(format!("found {}, expected a string", describe(other))),
    }
}

/// A string that stays.
pub(super) fn string(value: &DeValue<'_>) -> Result<String, String> {
    text(value).map(str::to_owned)
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        other => Err(format!("found {}, expected true or false", describe(other))),
    }
}

/// A whole number within `bounds`.
pub(super) fn whole<T>(bounds: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |value| {
        let number = match value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number.and_then(|number| T::try_from(number).ok()).filter(|number| bounds.contains(number)).ok_or_else(|| {
            format!("found {}, expected a whole number from {} to {}", describe(value), bounds.start(), bounds.end())
        })
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let text = text(value)?;
        let names = || words.iter().map(|(name, _)| *name);
        match words.iter().find(|(name, _)| *name == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(format!("{} is none of {}{}", shown(text), quoted(names()), did_you_mean(text, names()))),
        }
    }
}

/// `"a", "b", "c"`.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(shown).collect();
    names.join(", ")
}

/// A length of time within `bounds`.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let right = "write a whole number and its unit, like \"500ms\", \"2s\" or \"1m\"";
        let text = text(value).map_err(|_| format!("found {}; {right}", describe(value)))?;
        let duration = parse_duration(text).ok_or_else(|| format!("{} is not a duration; {right}", shown(text)))?;
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        Err(format!(
            "{} is out of bounds; at least {} and at most {}",
            shown(text),
            humane(*bounds.start()),
            humane(*bounds.end())
        ))
    }
}

/// An amount of bytes within `bounds`.
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let right = "write a whole number and its unit, like \"10 GB\" or \"500 MB\"";
        let text = text(value).map_err(|_| format!("found {}; {right}", describe(value)))?;
        let size = in_ones(text, &BYTES).ok_or_else(|| format!("{} is not a size; {right}", shown(text)))?;
        if bounds.contains(&size) {
            return Ok(size);
        }
        let [least, most] = [*bounds.start(), *bounds.end()].map(|bound| largest_unit(bound, &BYTES));
        Err(format!(
            "{} is out of bounds; at least {} {} and at most {} {}",
            shown(text),
            least.0,
            least.1,
            most.0,
            most.1
        ))
    }
}

/// Units of time in milliseconds, the largest first.
const TIME: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of memory in bytes, the largest first.
const BYTES: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("B", 1)];

/// `None`: not a whole number and one of the units, or more than can be.
fn in_ones(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, length) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*length)
}

/// `amount` in its largest exact unit; the last of `units` is 1.
fn largest_unit<'a>(amount: u64, units: &[(&'a str, u64)]) -> (u64, &'a str) {
    let exact = units.iter().find(|(_, length)| amount >= *length && amount.is_multiple_of(*length));
    exact.or(units.last()).map_or((amount, ""), |(unit, length)| (amount / length, *unit))
}

fn parse_duration(text: &str) -> Option<Duration> {
    in_ones(text, &TIME).map(Duration::from_millis)
}

/// `duration` as it is written in the file.
pub(super) fn humane(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (number, unit) = largest_unit(milliseconds, &TIME);
    format!("{number}{unit}")
}

/// The name of a table of the database.
pub(super) fn table(value: &DeValue<'_>) -> Result<TableName, String> {
    let text = text(value)?;
    TableName::new(text).map_err(|wrong| format!("{} {wrong}", shown(text)))
}

/// The name of a table's column.
pub(super) fn column(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    match name {
        "" => Err("\"\" names no column".to_owned()),
        _ if name.contains('\0') => Err(format!("{} holds a NUL, which no column's name does", shown(name))),
        _ => Ok(name.to_owned()),
    }
}

/// An address and a port, as something that can be connected to.
pub(super) fn endpoint(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address = listener(value)?;
    match unusable(address.ip()) {
        Some(why) => Err(format!("\"{address}\" cannot be connected to: {why}")),
        None => Ok(address),
    }
}

/// An address and a port, as something that can be listened on; the unspecified address is one.
pub(super) fn listener(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = text(value)?;
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("{} is not an address and a port; write it like \"192.0.2.1:80\" or \"[2001:db8::1]:80\"", shown(text))
    })?;
    if address.port() == 0 {
        return Err(format!("\"{address}\" has port 0; give the real port"));
    }
    Ok(address)
}

/// A protocol and its port.
pub(super) fn port(value: &DeValue<'_>) -> Result<Port, String> {
    let text = text(value)?;
    let right = "write it like \"tcp/443\", \"udp/53\" or, for every port, \"tcp/any\"";
    let port = text.split_once('/').and_then(|(protocol, number)| {
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let number = if number == "any" { 0 } else { number.parse().ok().filter(|number| *number != 0)? };
        Some(Port { protocol, number })
    });
    port.ok_or_else(|| format!("{} is not a port; {right}", shown(text)))
}

/// A backend's endpoint and its weight: a string, or a table with both.
pub(super) fn backend(value: &DeValue<'_>) -> Result<(SocketAddr, u32), String> {
    let DeValue::Table(table) = value else {
        return Ok((endpoint(value)?, 1));
    };
    let right = "write it like { address = \"192.0.2.1:80\", weight = 2 }";
    if let Some(key) = table.keys().map(|key| key.get_ref().as_ref()).find(|key| !["address", "weight"].contains(key)) {
        return Err(format!("no such key {}; {right}", shown(key)));
    }
    let address = table.get("address").ok_or_else(|| format!("no address; {right}"))?;
    let weight = table.get("weight").map_or(Ok(1), |weight| whole(0..=MAX_WEIGHT)(weight.get_ref()));
    Ok((endpoint(address.get_ref())?, weight.map_err(|wrong| format!("weight: {wrong}"))?))
}

/// An address that one host has.
pub(super) fn address(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let text = text(value)?;
    let address = text.parse().map_err(|_| {
        format!(
            "{} is not an IP address; write it like \"192.0.2.80\" or \"2001:db8::80\", without port or prefix length",
            shown(text)
        )
    })?;
    match unusable(address) {
        Some(why) => Err(format!("\"{address}\" cannot be used: {why}")),
        None => Ok(address),
    }
}

/// Why nothing can be reached at `address`.
fn unusable(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4 address mapped to IPv6; write the IPv4 address".to_owned())
        }
        _ if address.is_unspecified() => Some("it stands for any address; name the one that is meant".to_owned()),
        _ if address.is_multicast() => Some("it is a multicast address".to_owned()),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("it is the broadcast address".to_owned()),
        _ => None,
    }
}

/// A domain name in its ASCII form, always fully qualified whether or not it is written with its last dot.
pub(super) fn domain(value: &DeValue<'_>) -> Result<LowerName, String> {
    let text = text(value)?;
    let wrong = |why: &str| format!("{} {why}", shown(text));
    let labels = text.strip_suffix('.').unwrap_or(text);
    if labels.is_empty() {
        return Err(wrong("is not a domain name; write it like \"www.shop.test\""));
    }
    if labels.starts_with("*.") || labels == "*" {
        return Err(wrong("is a wildcard; name each domain"));
    }
    if !labels.is_ascii() {
        return Err(wrong("is not ASCII; write the name in its \"xn--\" form"));
    }
    if labels.len() > 253 {
        return Err(wrong("is longer than 253 characters"));
    }
    for label in labels.split('.') {
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if label.is_empty() || label.len() > 63 || !label.bytes().all(good) {
            return Err(wrong(
                "is not a domain name; each part between dots has 1 to 63 letters, digits, \"-\" or \"_\"",
            ));
        }
    }
    let mut name = Name::from_ascii(labels).map_err(|error| wrong(&format!(": {error}")))?;
    name.set_fqdn(true);
    Ok(LowerName::new(&name))
}

/// Whether `name` can name a site or a resource: `[a-z0-9][a-z0-9-]{0,31}`.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 32 && name.bytes().next().is_some_and(plain) && name.bytes().all(|c| plain(c) || c == b'-')
}

/// What is wrong with a name that is not one.
pub(super) fn name_rule(name: &str) -> String {
    format!("{} cannot be a name; use 1 to 32 of a-z, 0-9 and \"-\", not starting with \"-\"", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_write_them() {
        for (text, milliseconds) in [
            ("500ms", Some(500)),
            ("2s", Some(2000)),
            ("1m", Some(60_000)),
            ("1h", Some(3_600_000)),
            ("5 s", Some(5000)),
            ("18446744073709551615ms", Some(u64::MAX)),
            ("18446744073709551616ms", None),
            ("18446744073709551615s", None),
            ("500", None),
            ("ms", None),
            ("", None),
            ("1.5s", None),
            ("-1s", None),
            ("1s1s", None),
            ("٣s", None),
        ] {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_duration_is_shown_in_its_largest_exact_unit() {
        for (milliseconds, text) in [(0, "0ms"), (1500, "1500ms"), (2000, "2s"), (90_000, "90s")] {
            assert_eq!(humane(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(humane(Duration::from_secs(3600)), "1h");
    }

    #[test]
    fn sizes_are_written_with_units_of_a_thousand() {
        for (text, bytes) in [
            ("10 GB", Some(10_000_000_000)),
            ("10GB", Some(10_000_000_000)),
            ("500 MB", Some(500_000_000)),
            ("64 kB", Some(64_000)),
            ("1 B", Some(1)),
            ("1 TB", Some(1_000_000_000_000)),
            ("18446744073709551615 B", Some(u64::MAX)),
            ("18446744073709552 kB", None),
            ("10", None),
            ("10 G", None),
            ("10 KB", None),
            ("10 GiB", None),
            ("1.5 GB", None),
            ("GB", None),
            ("", None),
        ] {
            assert_eq!(in_ones(text, &BYTES), bytes, "{text}");
        }
        for (bytes, shown) in [(0, (0, "B")), (1500, (1500, "B")), (2000, (2, "kB")), (10_000_000_000, (10, "GB"))] {
            assert_eq!(largest_unit(bytes, &BYTES), shown);
        }
    }

    #[test]
    fn names_of_sites_and_resources() {
        let longest = "a".repeat(32);
        for good in ["a", "0", "east-1", longest.as_str()] {
            assert!(is_name(good), "{good}");
        }
        let too_long = "a".repeat(33);
        for bad in ["", "-a", "East", "a_b", "a.b", "ä", "a b", too_long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
