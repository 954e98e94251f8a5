//! What a route allows its plugin beyond computing: `allow` of `[[route]]`.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

/// What a plugin may reach. Nothing, unless the route says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    /// Where it may send HTTP requests. Empty: nowhere.
    pub http: Vec<HttpAllow>,
    /// Private networks that the hosts of [`Allow::http`] may resolve to. An address that is a host itself there needs no mention.
    pub networks: Vec<Network>,
    /// The databases that it may use, by the name of their `[database.NAME]`.
    pub sql: Vec<String>,
    /// The buckets of keys and values that it may open.
    pub keyvalue: Vec<BucketAllow>,
}

/// A bucket of keys and values in the durable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAllow {
    /// By this name the plugin opens it.
    pub name: String,
    /// Who shares it.
    pub scope: BucketScope,
    /// How many keys it may hold.
    pub keys: usize,
    /// How many bytes of keys and values.
    pub bytes: usize,
}

/// Who shares a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BucketScope {
    /// The workflows of the route.
    #[default]
    Route,
    /// Those of all routes of the plugin that allow it in this scope.
    Plugin,
}

impl FromStr for BucketScope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "route" => Ok(BucketScope::Route),
            "plugin" => Ok(BucketScope::Plugin),
            _ => Err("is neither \"route\" nor \"plugin\"".to_owned()),
        }
    }
}

impl BucketAllow {
    /// The longest name.
    pub(crate) const LONGEST: usize = 64;

    /// Whether a bucket may have that name.
    pub(super) fn check_name(name: &str) -> Result<(), String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > Self::LONGEST || !name.chars().all(legal) {
            return Err(format!(
                "is no name of a bucket: 1 to {} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`",
                Self::LONGEST
            ));
        }
        Ok(())
    }
}

/// Where HTTP requests may go, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAllow {
    /// What it covers.
    pub prefix: UrlPrefix,
    /// Shared by all workflows of the route in this worker.
    pub bounds: Bounds,
}

/// How much of something at a time. Nothing said: no bound of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How many may begin in a time.
    pub rate: Option<Rate>,
    /// How many may be under way.
    pub at_once: Option<usize>,
}

/// `100/s`, `10/m`, `5/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is no rate; write it like \"100/s\", \"10/m\" or \"5/h\"".to_owned();
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        let count: NonZeroU32 = count.trim().parse().map_err(|_| wrong())?;
        let most = 1_000_000;
        if count.get() > most {
            return Err(format!("is a rate above {most}: leave it out for none"));
        }
        Ok(Rate { count, per: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Scheme, host, port and the beginning of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPrefix(Url);

impl UrlPrefix {
    /// Whether a request to `url` is allowed. The path of a [`Url`] has no `.` and `..` any more: it is what will be asked for.
    pub fn covers(&self, url: &Url) -> bool {
        let Self(own) = self;
        let same_place = own.scheme() == url.scheme()
            && own.host_str() == url.host_str()
            && own.port_or_known_default() == url.port_or_known_default();
        let prefix = own.path();
        // `/v1` covers `/v1/orders` and not `/v10`.
        let below = url
            .path()
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'));
        let plain = prefix == "/" || !is_read_differently(url.path());
        same_place && below && plain
    }

    /// The host, if it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.host_str()?.trim_matches(['[', ']']).parse().ok()
    }
}

/// Whether a server may read another path in it: some take an encoded slash, backslash or dot for one, decode twice, or take `..;x` for `..`.
fn is_read_differently(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["%2f", "%5c", "%2e", "%25", "%3b", ";"].iter().any(|part| path.contains(part))
}

impl FromStr for UrlPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url =
            Url::parse(text).map_err(|e| format!("is no URL ({e}); write it like \"https://api.example.com/v1\""))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http:// nor https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("has more than scheme, host, port and path; a secret belongs into `config`".to_owned());
        }
        if url.host_str().is_none_or(|host| host.contains('*')) {
            return Err("names no single host; list each one".to_owned());
        }
        Ok(UrlPrefix(url))
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let masked = |address: u128, width: u8| address.checked_shr(u32::from(width - self.bits)).unwrap_or(0);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                masked(u128::from(own.to_bits()), 32) == masked(u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => masked(own.to_bits(), 128) == masked(other.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is no network; write it like \"10.0.0.0/8\" or \"10.1.2.3\"".to_owned();
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > width { Err(wrong()) } else { Ok(Network { address, bits }) }
    }
}

/// Whether an address is reachable only from here: of this machine, of a private network, or special. Clouds answer with secrets there.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                // Carrier-grade NAT, protocol assignments, benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                // Site-local, documentation; and those that hold an IPv4 address: NAT64, 6to4, Teredo.
                || (first & 0xffc0) == 0xfec0
                || (first == 0x2001 && second == 0xdb8)
                || first == 0x64
                || first == 0x2002
                || (first == 0x2001 && second == 0)
                // IPv4-compatible.
                || v6.to_bits() >> 32 == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(prefix: &str, url: &str) -> bool {
        prefix.parse::<UrlPrefix>().unwrap().covers(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_prefix_covers_what_is_below_it() {
        for url in [
            "https://a.b/v1",
            "https://a.b/v1/",
            "https://a.b/v1/x?y=/../z",
            "https://A.B:443/v1/x",
            "https://a.b/v1/./x",
        ] {
            assert!(covers("https://a.b/v1", url), "{url}");
        }
        assert!(covers("https://a.b", "https://a.b/anything%2Felse"));
        assert!(covers("http://a.b:8080/", "http://a.b:8080/x"));
        assert!(covers("http://[::1]:80", "http://[0:0::1]/"));
    }

    #[test]
    fn no_trick_gets_around_it() {
        for url in [
            "http://a.b/v1",
            "https://a.b:444/v1",
            "https://a.b/v10",
            "https://a.b/",
            "https://a.b/v1/../admin",
            "https://a.b/v1/%2e%2e/admin",
            "https://a.b/v1/..%2fadmin",
            "https://a.b/v1/..%5cadmin",
            "https://a.b/v1\\..\\admin",
            "https://a.b/v1/..;/admin",
            "https://a.b/v1/..%3b/admin",
            "https://a.b/v1/%252e%252e/admin",
            "https://a.b.evil/v1",
            "https://evil/https://a.b/v1",
            "https://a.b@evil/v1",
            "https://a.b:443@evil/v1",
            "https://evil#@a.b/v1",
        ] {
            assert!(!covers("https://a.b/v1", url), "{url}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in
            ["a.b", "ftp://a.b", "https://", "https://u:p@a.b", "https://a.b/?q", "https://a.b/#f", "https://*.a.b"]
        {
            assert!(text.parse::<UrlPrefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        let rate = |text: &str| text.parse::<Rate>();
        assert_eq!(rate("100/s").unwrap().to_string(), "100/s");
        assert_eq!(rate(" 3 / m ").unwrap(), Rate { count: NonZeroU32::new(3).unwrap(), per: Duration::from_secs(60) });
        for wrong in ["", "/s", "0/s", "-1/s", "1/d", "1", "1/s/s", "4294967296/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn private_addresses_are_known_in_all_their_forms() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "fec0::1",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::2"));
        assert!(contains("fd00::/8", "fdff::1") && contains("::1", "::1") && !contains("127.0.0.1", "127.0.0.2"));
        for wrong in ["", "10", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text: String, address: u128, bits in 0..=128u8) {
            let _ = text.parse::<UrlPrefix>();
            let _ = text.parse::<Network>();
            let address = IpAddr::from(std::net::Ipv6Addr::from_bits(address));
            let _ = is_private(address);
            let network = Network { address: "::".parse().unwrap(), bits };
            prop_assert!(network.contains(address) || bits > 0);
        }
    }
}
