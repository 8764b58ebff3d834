# The usual set-up: one table, a Worker (or Spin component) and runners with keys, a native gateway on ECS without.
# Copy this directory, put a backend for the state in it (the state holds the access keys: encrypted, and readable by
# few), and keep the file .terraform.lock.hcl that `terraform init` makes.

terraform {
  required_version = ">= 1.7"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }

  # backend "s3" {
  #   bucket       = "my-terraform-state"
  #   key          = "dyad-cli-gateway.tfstate"
  #   region       = "eu-central-1"
  #   encrypt      = true
  #   use_lockfile = true
  # }
}

variable "region" {
  description = "Where the table is: AWS_REGION of every gateway and runner."
  type        = string
  default     = "eu-central-1"
}

provider "aws" {
  region = var.region
}

module "store" {
  source = "../../modules/store"

  users = {
    worker   = { policy = "edge", access_keys = ["a"] }
    runner-1 = { policy = "runner", access_keys = ["a"] }
    # For `dyad-gateway keys …` and `providers …`; keys are made by hand, so that they are in no state.
    admin = { policy = "admin" }
  }

  roles = {
    gateway = { policy = "edge", service = "ecs-tasks.amazonaws.com" }
  }

  tags = { project = "dyad-cli-gateway" }
}

output "region" {
  value = var.region
}

output "table_name" {
  value = module.store.table_name
}

output "role_arns" {
  value = module.store.role_arns
}

output "access_keys" {
  value     = module.store.access_keys
  sensitive = true
}
