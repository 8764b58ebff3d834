locals {
  # The table, wherever it has a replica: an edge in Europe uses the one in Europe.
  home_region = split(":", aws_dynamodb_table.store.arn)[3]
  table_arns = [
    for region in concat([local.home_region], sort(var.replica_regions)) :
    replace(aws_dynamodb_table.store.arn, ":${local.home_region}:", ":${region}:")
  ]

  # What each of them may do is in policies/, as IAM has it. That the store gets by with it, and that it allows no
  # more, is tested in infra/policies.
  policies = {
    for name in ["edge", "runner", "admin"] :
    name => templatefile("${path.module}/policies/${name}.json.tftpl", { table_arns = jsonencode(local.table_arns) })
  }
}

resource "aws_iam_policy" "store" {
  for_each = local.policies

  name        = "${var.table_name}-${each.key}"
  description = "Dyad CLI Gateway: what ${each.key} may do with the table ${var.table_name}"
  policy      = each.value
  tags        = var.tags
}

# DynamoDB calls a customer managed key in the name of who calls DynamoDB.
resource "aws_iam_policy" "key" {
  count = var.kms_key_arn == null ? 0 : 1

  name        = "${var.table_name}-key"
  description = "Dyad CLI Gateway: the key of the table ${var.table_name}, through DynamoDB only"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
      Resource = var.kms_key_arn
      Condition = {
        StringEquals = { "kms:ViaService" = "dynamodb.${local.home_region}.amazonaws.com" }
      }
    }]
  })
  tags = var.tags
}
