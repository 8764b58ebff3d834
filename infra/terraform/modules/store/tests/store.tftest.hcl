# `terraform test` with a provider that makes nothing up but ids: no account is needed.

mock_provider "aws" {
  mock_resource "aws_dynamodb_table" {
    defaults = {
      arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/dyad-gateway"
    }
  }
  mock_resource "aws_iam_policy" {
    defaults = {
      arn = "arn:aws:iam::123456789012:policy/mock"
    }
  }
}

run "defaults" {
  assert {
    condition     = aws_dynamodb_table.store.deletion_protection_enabled && aws_dynamodb_table.store.ttl[0].enabled
    error_message = "The table is protected, and its leases expire."
  }

  assert {
    condition     = length(aws_iam_user.store) + length(aws_iam_role.store) + length(aws_iam_access_key.store) == 0
    error_message = "Nobody is let in who was not named."
  }

  assert {
    condition = alltrue([
      for policy in values(aws_iam_policy.store) :
      jsondecode(policy.policy).Statement[0].Resource == ["arn:aws:dynamodb:eu-central-1:123456789012:table/dyad-gateway"]
    ])
    error_message = "Policies name this table and nothing else."
  }
}

run "identities" {
  variables {
    users = {
      worker   = { policy = "edge", access_keys = ["a", "b"] }
      runner-1 = { policy = "runner" }
    }
    roles = {
      gateway = { policy = "edge", service = "ecs-tasks.amazonaws.com" }
      host    = { policy = "runner", service = "ec2.amazonaws.com" }
    }
  }

  assert {
    condition     = toset(keys(aws_iam_access_key.store)) == toset(["worker/a", "worker/b"])
    error_message = "Keys are those that were named."
  }

  assert {
    condition     = toset(keys(aws_iam_instance_profile.store)) == toset(["host"])
    error_message = "EC2 takes a role by an instance profile; nothing else does."
  }
}

run "replicas_are_in_the_policies" {
  variables {
    replica_regions = ["us-east-1"]
  }

  assert {
    condition = output.table_arns == [
      "arn:aws:dynamodb:eu-central-1:123456789012:table/dyad-gateway",
      "arn:aws:dynamodb:us-east-1:123456789012:table/dyad-gateway",
    ]
    error_message = "An edge may use the replica of its region."
  }
}

run "unknown_policy" {
  command = plan

  variables {
    users = { worker = { policy = "everything" } }
  }

  expect_failures = [var.users]
}

run "one_key_does_not_fit_two_regions" {
  command = plan

  variables {
    kms_key_arn     = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    replica_regions = ["us-east-1"]
  }

  expect_failures = [aws_dynamodb_table.store]
}
