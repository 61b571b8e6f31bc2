"""Re-export the e-mail address functions of `engine.domain.addresses`, which every layer may import."""

from __future__ import annotations

from engine.domain.addresses import ascii_domain, domain_of, envelope_address, needs_smtputf8

__all__ = ["ascii_domain", "domain_of", "envelope_address", "needs_smtputf8"]
