//! What the NIFs take: conversions from Elixir terms.

use std::{ops::Deref, time::Duration};

use rustler::{Binary, Decoder, NifResult, ResourceArc, Term, types::atom::Atom};
use sss::{Options, Principal, Ref, Timeout};

use crate::{
    atoms,
    handle::{Handle, NamedStore, StoreResource},
};

/// The name of a store, or the reference that `open` returned.
pub enum HandleArg {
    Named(&'static NamedStore),
    Resource(ResourceArc<StoreResource>),
}

impl<'a> Decoder<'a> for HandleArg {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match term.decode::<Atom>() {
            Ok(name) => Ok(HandleArg::Named(NamedStore::get(term.get_env(), name))),
            Err(_) => term.decode().map(HandleArg::Resource),
        }
    }
}

impl Deref for HandleArg {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        match self {
            HandleArg::Named(store) => store.handle(),
            HandleArg::Resource(resource) => resource.handle(),
        }
    }
}

/// `{timeout, idle_timeout, principal, grace_ms, label, reauthenticated}`, where the label is `nil` to
/// leave it as it is.
pub struct OptionsArg<'a> {
    timeout: TimeoutArg,
    idle_timeout: TimeoutArg,
    principal: PrincipalArg<'a>,
    grace_ms: u64,
    label: Option<Binary<'a>>,
    reauthenticated: bool,
}

/// `:keep`, `:inherit`, `:infinity` or milliseconds.
struct TimeoutArg(Option<Timeout>);

/// `:keep`, `:clear` or the principal.
enum PrincipalArg<'a> {
    Keep,
    Clear,
    Set(Binary<'a>),
}

impl<'a> Decoder<'a> for OptionsArg<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (timeout, idle_timeout, principal, grace_ms, label, reauthenticated) = term.decode()?;
        Ok(OptionsArg { timeout, idle_timeout, principal, grace_ms, label, reauthenticated })
    }
}

impl<'a> Decoder<'a> for TimeoutArg {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let timeout = if atoms::keep() == term {
            None
        } else if atoms::inherit() == term {
            Some(Timeout::Inherit)
        } else if atoms::infinity() == term {
            Some(Timeout::Never)
        } else {
            Some(Timeout::After(Duration::from_millis(term.decode()?)))
        };
        Ok(TimeoutArg(timeout))
    }
}

impl<'a> Decoder<'a> for PrincipalArg<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if atoms::keep() == term {
            Ok(PrincipalArg::Keep)
        } else if atoms::clear() == term {
            Ok(PrincipalArg::Clear)
        } else {
            term.decode().map(PrincipalArg::Set)
        }
    }
}

impl OptionsArg<'_> {
    pub fn to_options(&self) -> Options<'_> {
        let principal = match &self.principal {
            PrincipalArg::Keep => Principal::Keep,
            PrincipalArg::Clear => Principal::Clear,
            PrincipalArg::Set(principal) => Principal::Set(principal.as_slice()),
        };
        let mut options = Options::new().grace(Duration::from_millis(self.grace_ms));
        options.timeout = self.timeout.0;
        options.idle_timeout = self.idle_timeout.0;
        options.principal = principal;
        options.label = self.label.as_ref().map(Binary::as_slice);
        options.reauthenticated = self.reauthenticated;
        options
    }
}

/// A reference of 32 bytes.
pub struct RefArg(pub Ref);

impl<'a> Decoder<'a> for RefArg {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let bytes: Binary = term.decode()?;
        let bytes = bytes.as_slice().try_into().map_err(|_| rustler::Error::BadArg)?;
        Ok(RefArg(Ref(bytes)))
    }
}
