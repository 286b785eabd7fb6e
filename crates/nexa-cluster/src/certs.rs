//! Certificates of nodes: who may be a node of a cluster, and under which name.
//!
//! Both sides of a link show a certificate that the cluster's authority has signed, and its name is the node's id. An
//! authority of one's own company will do; this one is for those who have none: laptops, tests, first clusters.
//!
//! A node's id has to be a name that fits into a certificate, see [`check_name`].

mod der;

use std::fmt;
use std::time::Duration;

use nexa_types::{NodeId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub use der::Seen;

/// How long an authority's own certificate counts.
pub const AUTHORITY_DAYS: u64 = 3_650;
/// How long a node's certificate counts, unless said otherwise.
pub const NODE_DAYS: u64 = 365;
/// A certificate counts from so long before it was made: clocks differ.
const EARLIER: Duration = Duration::from_secs(3_600);
/// The name that an authority signs with. It has one, so that it can be opened again from its key.
const AUTHORITY_NAME: &str = "Nexa development authority";
const DAY: Duration = Duration::from_secs(86_400);

/// A moment in the type of the one crate that wants it.
macro_rules! moment {
    ($since:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + $since
    };
}
/// Why there is no certificate, or why it is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The name of a node cannot be in a certificate.
    #[error(
        "`{node}` cannot be the name of a certificate: use lower-case letters, digits, `-` and `.`, at most 63 between two dots"
    )]
    Name {
        /// The name.
        node: NodeId,
    },
    /// A host is neither a name nor an address.
    #[error("`{host}` is neither the name of a host nor an IP address")]
    Host {
        /// What was given.
        host: String,
    },
    /// A key or certificate could not be made or read.
    #[error("cannot {doing}: {detail}")]
    Broken {
        /// What was tried.
        doing: &'static str,
        /// What is wrong.
        detail: String,
    },
}

impl CertError {
    fn broken(doing: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |error| Self::Broken { doing, detail: error.to_string() }
    }
}

/// What a node shows and by what it judges others, each as PEM.
#[derive(Clone)]
pub struct Identity {
    /// Its certificate.
    pub certificate: String,
    /// The key to it. A secret.
    pub key: String,
    /// The certificate of the authority that all nodes of the cluster trust.
    pub authority: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Who signs the certificates of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, with a key of its own.
    ///
    /// # Errors
    /// [`CertError::Broken`] if the machine cannot make keys.
    pub fn new(now: Timestamp) -> Result<Self, CertError> {
        let key = KeyPair::generate().map_err(CertError::broken("make the authority's key"))?;
        let params = authority_params(now);
        let certificate =
            params.self_signed(&key).map_err(CertError::broken("sign the authority's certificate"))?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// One for a test or for the nodes of one process: its key is never written anywhere.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn throwaway(now: Timestamp) -> Result<Self, CertError> {
        Self::new(now)
    }

    /// One that was made before, from what [`Authority::certificate`] and [`Authority::key`] gave.
    ///
    /// # Errors
    /// [`CertError::Broken`] if this is no key.
    pub fn open(certificate: String, key: &str) -> Result<Self, CertError> {
        let key = KeyPair::from_pem(key).map_err(CertError::broken("read the authority's key"))?;
        Ok(Self { issuer: Issuer::new(authority_params(Timestamp(0)), key), certificate })
    }

    /// Its certificate as PEM, for everybody.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key as PEM. A secret: who has it can be any node.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes a key and a certificate for a node, that counts for so many days. `hosts` are names and addresses under
    /// which something other than a node may want to reach it.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn issue(&self, node: &NodeId, hosts: &[String], now: Timestamp, days: u64) -> Result<Identity, CertError> {
        let start = Duration::from_millis(now.0).saturating_sub(EARLIER);
        self.issue_between(
            node,
            hosts,
            start,
            Duration::from_millis(now.0) + DAY * u32::try_from(days).unwrap_or(u32::MAX),
        )
    }

    /// The same between two moments, each since 1970.
    fn issue_between(
        &self,
        node: &NodeId,
        hosts: &[String],
        start: Duration,
        end: Duration,
    ) -> Result<Identity, CertError> {
        check_name(node)?;
        let mut names = vec![node.as_str().to_owned()];
        for host in hosts {
            if rustls::pki_types::ServerName::try_from(host.as_str()).is_err() {
                return Err(CertError::Host { host: host.clone() });
            }
            if !names.contains(host) {
                names.push(host.clone());
            }
        }
        let mut params = CertificateParams::new(names).map_err(CertError::broken("name the certificate"))?;
        params.distinguished_name = named(node.as_str());
        params.not_before = moment!(start);
        params.not_after = moment!(end);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(CertError::broken("make a key"))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CertError::broken("sign a certificate"))?.pem();
        Ok(Identity { certificate, key: key.serialize_pem(), authority: self.certificate.clone() })
    }
}

/// Whether a node's id can be the name of a certificate, and is in the one spelling that such a name has.
///
/// # Errors
/// [`CertError::Name`].
pub fn check_name(node: &NodeId) -> Result<(), CertError> {
    let name = node.as_str();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name of digits and dots would be read as an address.
    let is_name = name.split('.').all(is_label) && name.contains(|c: char| c.is_ascii_lowercase());
    if is_name { Ok(()) } else { Err(CertError::Name { node: node.clone() }) }
}

/// Reads what a certificate says of itself: the first one of a PEM text. Whether anybody signed it is not looked at.
///
/// # Errors
/// [`CertError::Broken`] if this is none.
pub fn look(pem: &str) -> Result<Seen, CertError> {
    let doing = "read the certificate";
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| CertError::Broken { doing, detail: error.to_string() })?;
    Seen::of(&der).ok_or_else(|| CertError::Broken { doing, detail: "it is no X.509 certificate".to_owned() })
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = moment!(Duration::from_millis(now.0).saturating_sub(EARLIER));
    params.not_after = moment!(Duration::from_millis(now.0) + DAY * AUTHORITY_DAYS as u32);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("an id")
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_how_long_it_counts() {
        let authority = Authority::new(NOW).unwrap();
        let hosts = ["10.0.0.7".to_owned(), "n1.example.org".to_owned()];
        let identity = authority.issue(&node("n1"), &hosts, NOW, 30).unwrap();
        let seen = look(&identity.certificate).unwrap();
        assert_eq!(seen.names, ["n1", "n1.example.org"]);
        assert_eq!(seen.addresses, ["10.0.0.7"]);
        assert_eq!(seen.from, Timestamp(NOW.0 - 3_600_000));
        assert_eq!(seen.until, Timestamp(NOW.0 + 30 * 86_400_000));
        let own = look(authority.certificate()).unwrap();
        assert_eq!((own.names.len(), own.until), (0, Timestamp(NOW.0 + AUTHORITY_DAYS * 86_400_000)));
    }

    #[test]
    fn an_authority_that_is_opened_again_signs_under_the_same_name() {
        let first = Authority::new(NOW).unwrap();
        let again = Authority::open(first.certificate().to_owned(), &first.key()).unwrap();
        assert_eq!(again.key(), first.key());
        let identity = again.issue(&node("late"), &[], NOW, 1).unwrap();
        assert_eq!(identity.authority, first.certificate());
        assert!(Authority::open(String::new(), "no key").is_err());
    }

    #[test]
    fn names_that_could_be_read_as_something_else_are_refused() {
        for good in ["n1", "node-1.zone-a", "a"] {
            check_name(&node(good)).expect(good);
        }
        let long = "a".repeat(64);
        for bad in ["N1", "10.0.0.7", "a_b", "a:1", "a/b", "-a", "a-", "a..b", ".a", "a@b", &long] {
            assert!(check_name(&node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_wherever_it_ends() {
        let authority = Authority::new(NOW).unwrap();
        let pem = authority.issue(&node("n1"), &["10.0.0.7".to_owned()], NOW, 30).unwrap().certificate;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let whole = Seen::of(&der).unwrap();
        for len in 0..der.len() {
            assert_eq!(Seen::of(&der[..len]), None, "cut at {len}");
        }
        // Whatever one byte is changed to, nothing panics.
        for at in 0..der.len() {
            for value in [0, 1, 0x7f, 0x80, 0x81, 0x84, 0xff] {
                let mut changed = der.to_vec();
                changed[at] = value;
                let _ = Seen::of(&changed);
            }
        }
        assert_eq!(whole.names, ["n1"]);
        assert!(look("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        assert!(look("nothing").is_err());
    }

    #[test]
    fn keys_are_not_shown() {
        let authority = Authority::new(NOW).unwrap();
        let identity = authority.issue(&node("n1"), &[], NOW, 30).unwrap();
        let shown = format!("{authority:?} {identity:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
