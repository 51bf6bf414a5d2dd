//! A pack's header: version, cipher, domain, name and the sealed pack key.

use crate::crypto::{
    Aead, DomainKeys, ENCAPSULATED_LEN, Generation, Key, SEALED_PACK_KEY_LEN, SealedPackKey,
};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::{DomainId, ObjectName, PackId, RepositoryId};

pub(super) const MAGIC: [u8; 8] = *b"stillpk\0";
pub(super) const VERSION: u8 = 1;
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, mode PSK.
const SUITE: u8 = 1;

/// Magic, version, cipher, suite, zero, domain, key generation, pack id.
const PREFIX_LEN: usize = 8 + 4 + 4 + 4 + PackId::LEN;

/// Length of a pack's header, bytes.
pub const PACK_HEADER_LEN: usize = PREFIX_LEN + ENCAPSULATED_LEN + SEALED_PACK_KEY_LEN;

/// What a header says, before its key is opened.
pub(super) struct PackHeader {
    pub(super) aead: Aead,
    pub(super) domain: DomainId,
    pub(super) generation: Generation,
    pub(super) bytes: [u8; PACK_HEADER_LEN],
    key: SealedPackKey,
}

impl PackHeader {
    /// Draws a pack key and seals it into a new header.
    pub(super) fn create(
        pack: &PackId,
        aead: Aead,
        repository: &RepositoryId,
        keys: &DomainKeys,
        env: &dyn Env,
    ) -> (Self, Key) {
        let mut secret = Key::default();
        env.fill_random(secret.as_mut());
        let prefix: Vec<u8> = [
            MAGIC.as_slice(),
            &[VERSION, aead.as_u8(), SUITE, 0],
            &keys.domain().0.to_le_bytes(),
            &keys.generation().0.to_le_bytes(),
            pack.as_bytes(),
        ]
        .concat();
        let key = SealedPackKey::seal(&secret, keys, &info(repository, &prefix), env);
        let bytes = [prefix.as_slice(), &key.encapsulated, &key.sealed].concat();
        let bytes = bytes.try_into().expect("the parts add up to the header's length");
        let (domain, generation) = (keys.domain(), keys.generation());
        (Self { aead, domain, generation, bytes, key }, secret)
    }

    /// Parses the first bytes of a pack; more bytes behind the header are ignored.
    pub(super) fn parse(pack: &PackId, bytes: &[u8]) -> Result<Self> {
        let damaged = |detail: &str| Error::damaged(ObjectName::Pack(*pack), detail);
        let bytes = *bytes
            .first_chunk::<PACK_HEADER_LEN>()
            .ok_or_else(|| damaged("it is shorter than its header"))?;
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest) != MAGIC {
            return Err(damaged("it does not start as a pack"));
        }
        let [version, aead, suite, zero] = take(&mut rest);
        check_version(pack, version)?;
        let domain = DomainId(u32::from_le_bytes(take(&mut rest)));
        let generation = Generation(u32::from_le_bytes(take(&mut rest)));
        let name = PackId::from_bytes(take(&mut rest));
        if suite != SUITE || zero != 0 {
            return Err(damaged("its header has fields with impossible values"));
        }
        if name != *pack {
            return Err(damaged(&format!("it is pack {name} under a wrong name")));
        }
        let key = SealedPackKey { encapsulated: take(&mut rest), sealed: take(&mut rest) };
        let aead = Aead::from_u8(aead, ObjectName::Pack(*pack))?;
        Ok(Self { aead, domain, generation, bytes, key })
    }

    /// Opens the pack key.
    pub(super) fn open_key(
        &self,
        pack: &PackId,
        repository: &RepositoryId,
        keys: &DomainKeys,
    ) -> Result<Key> {
        let object = ObjectName::Pack(*pack).path();
        if self.domain != keys.domain() {
            let detail = format!("it names domain {}, not {}", self.domain.0, keys.domain().0);
            return Err(Error::damaged(object, detail));
        }
        let prefix = self.bytes.first_chunk::<PREFIX_LEN>().expect("the header is longer");
        self.key.open(keys, self.generation, &info(repository, prefix), &object)
    }
}

/// Newer versions are unsupported, anything else unknown is damage.
pub(super) fn check_version(pack: &PackId, version: u8) -> Result<()> {
    if version > VERSION {
        return Err(Error::Unsupported {
            object: ObjectName::Pack(*pack).path(),
            found: version.into(),
            supported: VERSION.into(),
        });
    }
    if version != VERSION {
        return Err(Error::damaged(ObjectName::Pack(*pack), "it names version 0"));
    }
    Ok(())
}

/// What a pack key is bound to.
fn info(repository: &RepositoryId, prefix: &[u8]) -> Vec<u8> {
    [b"stillpoint format 1: pack key".as_slice(), repository.as_bytes(), prefix].concat()
}

/// Takes the next `N` bytes of a header whose total length has been checked.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, behind) = rest.split_first_chunk::<N>().expect("the fields add up to the length");
    *rest = behind;
    *field
}
