variable "table_name" {
  description = "The table's name: DYAD_TABLE of every gateway and runner."
  type        = string
  default     = "dyad-gateway"

  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.table_name))
    error_message = "DynamoDB takes 3 to 255 of a-z, A-Z, 0-9, '_', '-' and '.'."
  }
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the table. Turned off in a step of its own before the table is to go."
  type        = bool
  default     = true
}

variable "point_in_time_recovery" {
  description = "Whether the table can be restored to any second of the last 35 days."
  type        = bool
  default     = true
}

variable "max_read_request_units" {
  description = "Ceiling of read request units a second, against a runaway bill. What exceeds it is throttled. Null: AWS's own quota."
  type        = number
  default     = null
}

variable "max_write_request_units" {
  description = "Ceiling of write request units a second. Null: AWS's own quota."
  type        = number
  default     = null
}

variable "kms_key_arn" {
  description = "A customer managed KMS key in the table's region. Null: a key that DynamoDB owns (encrypted all the same, free, and without KMS calls). Not with replica_regions: each replica would need a key of its own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "Write the key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID: an alias may come to mean another key."
  }
}

variable "replica_regions" {
  description = "Further regions with a replica of the table (a global table). Limits of a key that is used in two regions at once then do not hold: see \"Several regions\" in infra/README.md first."
  type        = set(string)
  default     = []
}

variable "users" {
  description = <<-EOT
    IAM users for what runs outside of AWS: Workers, Spin, runners on hosts of your own, administrators. By a name of
    your choice: which policy it gets ("edge", "runner", "admin"), and its access keys, by names of your choice too.
    Two keys at most (AWS's limit), so that one can be rotated: add a name, deploy its key, remove the old name.
    A key's secret is then in Terraform's state. With no name here, make keys by `aws iam create-access-key`.
  EOT
  type = map(object({
    policy      = string
    access_keys = optional(set(string), [])
  }))
  default = {}

  validation {
    condition     = alltrue([for user in values(var.users) : contains(["edge", "runner", "admin"], user.policy)])
    error_message = "A user's policy is one of edge, runner, admin."
  }

  validation {
    condition     = alltrue([for user in values(var.users) : length(user.access_keys) <= 2])
    error_message = "AWS allows a user two access keys."
  }
}

variable "roles" {
  description = <<-EOT
    IAM roles for what runs in AWS, which needs no keys: by a name of your choice its policy ("edge", "runner", "admin")
    and the service that may take it, such as "ecs-tasks.amazonaws.com" or "ec2.amazonaws.com" (which gets an instance
    profile too).
  EOT
  type = map(object({
    policy  = string
    service = string
  }))
  default = {}

  validation {
    condition     = alltrue([for role in values(var.roles) : contains(["edge", "runner", "admin"], role.policy)])
    error_message = "A role's policy is one of edge, runner, admin."
  }

  validation {
    condition     = alltrue([for role in values(var.roles) : can(regex("^[a-z0-9-]+\\.amazonaws\\.com$", role.service))])
    error_message = "A role's service is one of AWS's, such as ecs-tasks.amazonaws.com."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
