"""Lints IAM policies (parliament: unknown actions, resources and condition keys). Takes Terraform's templates."""

import json
import sys
from pathlib import Path

import parliament

TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/dyad-gateway"


def main():
    failed = False
    for path in sys.argv[1:]:
        policy = Path(path).read_text().replace("${table_arns}", json.dumps([TABLE]))
        for finding in parliament.analyze_policy_string(policy).findings:
            print(f"{path}:{finding.location.get('line')}: {finding.issue}: {finding.detail}")
            failed = True
    sys.exit(failed)


main()
