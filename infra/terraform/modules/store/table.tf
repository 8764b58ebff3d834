# The one table. Its items are listed in edge/store/src/lib.rs. It has no index: what belongs together is in one
# partition, and everything else is read by its key.
resource "aws_dynamodb_table" "store" {
  name         = var.table_name
  billing_mode = "PAY_PER_REQUEST"
  table_class  = "STANDARD"
  hash_key     = "pk"
  range_key    = "sk"

  deletion_protection_enabled = var.deletion_protection

  # A global table replicates by its stream.
  stream_enabled   = length(var.replica_regions) > 0
  stream_view_type = length(var.replica_regions) > 0 ? "NEW_AND_OLD_IMAGES" : null

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  # Leases of limits and nodes of the registry. AWS may take days to delete; the code looks at the time itself.
  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  # Without this block it is encrypted too, under a key that DynamoDB owns.
  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }

  dynamic "on_demand_throughput" {
    for_each = var.max_read_request_units == null && var.max_write_request_units == null ? [] : [1]
    content {
      max_read_request_units  = var.max_read_request_units
      max_write_request_units = var.max_write_request_units
    }
  }

  dynamic "replica" {
    for_each = var.replica_regions
    content {
      region_name            = replica.value
      point_in_time_recovery = var.point_in_time_recovery
      propagate_tags         = true
    }
  }

  tags = var.tags

  lifecycle {
    precondition {
      condition     = var.kms_key_arn == null || length(var.replica_regions) == 0
      error_message = "kms_key_arn and replica_regions do not go together: each replica would need a key of its own."
    }
  }
}
