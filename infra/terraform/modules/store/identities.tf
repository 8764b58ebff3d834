locals {
  # "USER/KEY" → USER
  access_keys = merge([
    for user, settings in var.users : {
      for key in settings.access_keys : "${user}/${key}" => user
    }
  ]...)
}

resource "aws_iam_user" "store" {
  for_each = var.users

  name = "${var.table_name}-${each.key}"
  path = "/dyad-cli-gateway/"
  tags = var.tags
}

resource "aws_iam_user_policy_attachment" "store" {
  for_each = var.users

  user       = aws_iam_user.store[each.key].name
  policy_arn = aws_iam_policy.store[each.value.policy].arn
}

resource "aws_iam_user_policy_attachment" "key" {
  for_each = var.kms_key_arn == null ? {} : var.users

  user       = aws_iam_user.store[each.key].name
  policy_arn = aws_iam_policy.key[0].arn
}

resource "aws_iam_access_key" "store" {
  for_each = local.access_keys

  user = aws_iam_user.store[each.value].name
}

resource "aws_iam_role" "store" {
  for_each = var.roles

  name = "${var.table_name}-${each.key}"
  path = "/dyad-cli-gateway/"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = each.value.service }
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy_attachment" "store" {
  for_each = var.roles

  role       = aws_iam_role.store[each.key].name
  policy_arn = aws_iam_policy.store[each.value.policy].arn
}

resource "aws_iam_role_policy_attachment" "key" {
  for_each = var.kms_key_arn == null ? {} : var.roles

  role       = aws_iam_role.store[each.key].name
  policy_arn = aws_iam_policy.key[0].arn
}

resource "aws_iam_instance_profile" "store" {
  for_each = { for name, role in var.roles : name => role if role.service == "ec2.amazonaws.com" }

  name = aws_iam_role.store[each.key].name
  path = "/dyad-cli-gateway/"
  role = aws_iam_role.store[each.key].name
  tags = var.tags
}
