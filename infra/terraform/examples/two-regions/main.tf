# A table in Europe with a replica in America, and an edge in each. An edge is told its region by AWS_REGION.
# Limits of a key that is used in both at once do not hold: read "Several regions" in infra/README.md before.

terraform {
  required_version = ">= 1.7"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

module "store" {
  source = "../../modules/store"

  replica_regions = ["us-east-1"]

  # IAM is global: the same users and roles serve in both regions.
  roles = {
    gateway = { policy = "edge", service = "ecs-tasks.amazonaws.com" }
    runner  = { policy = "runner", service = "ec2.amazonaws.com" }
  }

  tags = { project = "dyad-cli-gateway" }
}

output "table_name" {
  value = module.store.table_name
}

output "table_arns" {
  value = module.store.table_arns
}

output "role_arns" {
  value = module.store.role_arns
}
