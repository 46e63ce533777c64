# SPDX-License-Identifier: Apache-2.0
"""pkix.py FILE...: what pkilint says of certificates (.cer), revocation lists (.crl) and OCSP answers (.ocsp) in DER, as JSON
{file: [[severity, code, place], ...]}. Runs in the environment that pkilint is installed in (certlint.py)."""
import json
import re
import sys
from pathlib import Path

from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name, ocsp

CERTIFICATE = certificate.create_pkix_certificate_validator_container(
    certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
    [certificate.create_issuer_validator_container([]), certificate.create_validity_validator_container(), certificate.create_subject_validator_container([]),
     certificate.create_extensions_validator_container([]), certificate.create_spki_validator_container([])])
LIST = crl.create_pkix_crl_validator_container(
    [pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS), pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS)],
    [crl.create_issuer_validator_container([]), crl.create_validity_validator_container([]), crl.create_extensions_validator_container([])])
ANSWER = ocsp.create_pkix_ocsp_response_validator_container(
    [ocsp.create_response_decoder(), pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS), pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS)], [])
KINDS = {".cer": (loader.RFC5280CertificateDocumentLoader(), CERTIFICATE), ".crl": (loader.RFC5280CertificateListDocumentLoader(), LIST),
         ".ocsp": (loader.RFC6960OCSPResponseDocumentLoader(), ANSWER)}


def judge(path):
    load, validator = KINDS[path.suffix]
    results = validator.validate(load.load_der_document(path.read_bytes()).root)
    return [[f.finding.severity.name, f.finding.code, re.sub(r"\.\d+(?=\.|$)", "", r.node.path)] for r in results for f in r.finding_descriptions]


if __name__ == "__main__":
    print(json.dumps({path: judge(Path(path)) for path in sys.argv[1:]}))
