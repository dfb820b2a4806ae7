//! Whom a check over TLS believes: the authorities of a file or of the machine, or anyone.
//!
//! Sessions are never resumed: a server whose certificate has expired meanwhile would go unnoticed.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, VerifierBuilderError, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    WantsVerifier,
};

use super::pinned::Pinned;
use crate::config::Check;

/// What TLS is spoken with; made once for all servers that share it.
#[derive(Clone)]
pub(super) struct Trust {
    pub(super) config: Arc<ClientConfig>,
    /// `None` believes anyone.
    authorities: Option<Arc<RootCertStore>>,
    /// Believed where a server shows one of them itself.
    pinned: Arc<[CertificateDer<'static>]>,
}

/// Why there is nothing to believe by.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTrust {
    #[error("a certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("it has no certificate in PEM")]
    Empty,
    #[error("this machine has no authorities: name a file")]
    NoneHere,
    #[error("{0}")]
    Tls(#[from] Error),
    #[error("{0}")]
    Verifier(#[from] VerifierBuilderError),
}

impl Trust {
    /// `verify: false`.
    pub(super) fn anyone(check: &Check) -> Result<Self, NoTrust> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Anyone(Arc::clone(&provider));
        let builder = builder(provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Self {
            config: finished(builder, check),
            authorities: None,
            pinned: Arc::default(),
        })
    }

    /// The certificates of a file, each as an authority and as a server's own.
    pub(super) fn of_pem(bytes: &[u8], check: &Check) -> Result<Self, NoTrust> {
        let unreadable = |error: &dyn fmt::Display| NoTrust::Unreadable(error.to_string());
        let mut store = RootCertStore::empty();
        let mut pinned = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(bytes) {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            store
                .add(certificate.clone())
                .map_err(|error| unreadable(&error))?;
            pinned.push(certificate);
        }
        if store.is_empty() {
            return Err(NoTrust::Empty);
        }
        Self::of(store, pinned, check)
    }

    /// Those that the machine's own programs believe.
    pub(super) fn of_machine(check: &Check) -> Result<Self, NoTrust> {
        let mut store = RootCertStore::empty();
        // Some that cannot be read take nothing from the others, as everywhere.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(NoTrust::NoneHere);
        }
        Self::of(store, Vec::new(), check)
    }

    fn of(
        store: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        check: &Check,
    ) -> Result<Self, NoTrust> {
        let store = Arc::new(store);
        let pinned: Arc<[_]> = pinned.into();
        let provider = Arc::new(ring::default_provider());
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
        let verifier = Pinned {
            authorities: authorities.build()?,
            certificates: Arc::clone(&pinned),
        };
        let builder = builder(provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Self {
            config: finished(builder, check),
            authorities: Some(store),
            pinned,
        })
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, NoTrust> {
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder.with_safe_default_protocol_versions()?)
}

fn finished(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    check: &Check,
) -> Arc<ClientConfig> {
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = match check {
        Check::Http(_) => vec![b"http/1.1".to_vec()],
        Check::Grpc(_) => vec![b"h2".to_vec()],
        _ => Vec::new(),
    };
    Arc::new(config)
}

/// The same authorities and the same protocols: a session would be the same.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        let has_same_roots = match (&self.authorities, &other.authorities) {
            (Some(one), Some(other)) => one.roots == other.roots,
            (one, other) => one.is_none() && other.is_none(),
        };
        has_same_roots
            && self.pinned == other.pinned
            && self.config.alpn_protocols == other.config.alpn_protocols
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.authorities.as_ref().map(|store| store.len());
        f.debug_struct("Trust")
            .field("authorities", &count)
            .finish()
    }
}

/// Takes any certificate for a good one, as `verify: false` asks for.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_good_certificate_is_told() {
        for (written, expected) in [
            ("", "it has no certificate in PEM"),
            ("nonsense", "it has no certificate in PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "a certificate cannot be read",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                "a certificate cannot be read",
            ),
        ] {
            let error = Trust::of_pem(written.as_bytes(), &Check::Tcp).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with(expected), "{written:?}: {error}");
        }
    }

    #[test]
    fn those_who_believe_anyone_are_the_same() {
        let anyone = || Trust::anyone(&Check::Tcp).unwrap();
        assert_eq!(anyone(), anyone());
    }
}
