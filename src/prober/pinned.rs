//! Certificates that a `ca` file holds and a server shows itself: believed without an authority.
//!
//! Whoever makes a certificate with `openssl req -x509` gets one that signs itself and is marked as an
//! authority. Webpki takes such a one for an authority alone and refuses it as a server's own. Here it
//! is good where it equals one of the file byte for byte, its time is right and the name is its own;
//! that the server has the key to it, rustls checks as ever. What it may be used for (extended key
//! usage) is not looked at in one that is marked as an authority.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Believes authorities, and servers that show one of these certificates.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) authorities: Arc<WebPkiServerVerifier>,
    pub(super) certificates: Arc<[CertificateDer<'static>]>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge = |chain| {
            let authorities = &self.authorities;
            authorities.verify_server_cert(shown, chain, name, ocsp, now)
        };
        let judged = judge(chain);
        if judged.is_ok() || !self.certificates.contains(shown) {
            return judged;
        }
        // By itself: the rest of its chain may be over while it is not.
        match judge(&[]) {
            Err(Error::InvalidCertificate(wrong)) if lacks_an_authority(&wrong) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Whether nothing is wrong but that no authority stands above the certificate. Webpki looks at a
/// certificate's time before it says either.
fn lacks_an_authority(wrong: &CertificateError) -> bool {
    *wrong == CertificateError::UnknownIssuer || is_an_authority(wrong)
}

/// Whether it is refused because it is marked as an authority. Rustls has no word of its own for it.
pub(super) fn is_an_authority(wrong: &CertificateError) -> bool {
    matches!(wrong, CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Of `openssl req -x509`, for web.example and 127.0.0.1.
    const SELF_SIGNED: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUMmwjWLgLgLFDAqoQVUzEf3Z/HVkwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGcGlubmVkMB4XDTI2MTEyMzIyMDgwMloXDTM2MTEyMDIyMDgw
MlowETEPMA0GA1UEAwwGcGlubmVkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
Ad3Gj6bg2BKNpKXeuNWt5vtRMdKNY4g3VA0YUqoJ8yUdtjZJwcxHuAPZKv7m+btX
vvS4NRwu7Pn1j9uzDegWKaNxMG8wHQYDVR0OBBYEFMtO+CAsT/comnkYB3TFGqQ3
HE8YMB8GA1UdIwQYMBaAFMtO+CAsT/comnkYB3TFGqQ3HE8YMA8GA1UdEwEB/wQF
MAMBAf8wHAYDVR0RBBUwE4ILd2ViLmV4YW1wbGWHBH8AAAEwCgYIKoZIzj0EAwID
SQAwRgIhANZO2D4t8evf6em5jEu3BKPtI2kxIcSfi0RFvc0lVYLQAiEA4YyKZ2V7
7kbRXXKXdRY8dIsUVYL/u8i5p0rsYoyQsvc=
-----END CERTIFICATE-----";

    /// Its time, in seconds.
    const FIRST: u64 = 1795471682;
    const LAST: u64 = 2110831682;

    fn judge(pinned: &[&str], name: &str, seconds: u64) -> Result<(), CertificateError> {
        let certificate = |pem: &&str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut store = RootCertStore::empty();
        store.add(certificate(&SELF_SIGNED)).unwrap();
        let provider = Arc::new(ring::default_provider());
        let authorities = WebPkiServerVerifier::builder_with_provider(store.into(), provider);
        let verifier = Pinned {
            authorities: authorities.build().unwrap(),
            certificates: pinned.iter().map(certificate).collect(),
        };
        let shown = certificate(&SELF_SIGNED);
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match verifier.verify_server_cert(&shown, &[], &name, &[], now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(wrong)) => Err(wrong),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_certificate_of_the_file_is_good_for_its_names_in_its_time() {
        for name in ["web.example", "127.0.0.1"] {
            for now in [FIRST, LAST] {
                assert_eq!(judge(&[SELF_SIGNED], name, now), Ok(()));
            }
        }
        use CertificateError as Wrong;
        let wrong = |name, now| judge(&[SELF_SIGNED], name, now).unwrap_err();
        let early = wrong("web.example", FIRST - 1);
        assert!(matches!(early, Wrong::NotValidYetContext { .. }), "{early}");
        let late = wrong("web.example", LAST + 1);
        assert!(matches!(late, Wrong::ExpiredContext { .. }), "{late}");
        for name in ["db.example", "127.0.0.2", "pinned"] {
            let other = wrong(name, FIRST);
            let is_expected = matches!(other, Wrong::NotValidForNameContext { .. });
            assert!(is_expected, "{name}: {other}");
        }
    }

    #[test]
    fn an_authority_that_is_not_of_the_file_is_no_server() {
        let wrong = judge(&[], "web.example", FIRST).unwrap_err();
        assert!(is_an_authority(&wrong), "{wrong}");
    }
}
