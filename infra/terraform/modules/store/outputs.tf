output "table_name" {
  description = "DYAD_TABLE."
  value       = aws_dynamodb_table.store.name
}

output "table_arns" {
  description = "The table, and its replicas."
  value       = local.table_arns
}

output "policy_arns" {
  description = "The policies edge, runner and admin, to attach to users and roles that are made elsewhere."
  value       = { for name, policy in aws_iam_policy.store : name => policy.arn }
}

output "role_arns" {
  description = "The roles, by the names they were given."
  value       = { for name, role in aws_iam_role.store : name => role.arn }
}

output "access_keys" {
  description = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of each user's keys, as \"USER/KEY\"."
  sensitive   = true
  value = {
    for name, key in aws_iam_access_key.store :
    name => { AWS_ACCESS_KEY_ID = key.id, AWS_SECRET_ACCESS_KEY = key.secret }
  }
}
